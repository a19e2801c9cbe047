"""`allaprima generate`: paint in this process and write files."""

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from allaprima.bootstrap import build_painter, prepare_device
from allaprima.domain.fields import RANDOM_SEED_BOUND
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.domain.models import SKETCH_ID
from allaprima.domain.progress import StepCallback, StepDone
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.flux import never_cancelled
from allaprima.settings import EngineSettings
from allaprima.weights.open import open_model
from allaprima.weights.paths import default_folder, find_path

SUFFIXES = {
    ".png": ImageFormat.PNG,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".webp": ImageFormat.WEBP,
}

#: Longest text that is read as a size; Python reads no numbers of thousands of digits.
MAX_SIZE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Job:
    """What to paint and where to write it."""

    request: GenerationRequest
    output: Path

    @classmethod
    def parse(cls, prompt: str, *, output: Path, size: str, steps: int, seed: int | None, count: int) -> "Job":
        """Return the job of a command line. Raises `InvalidRequest` naming every option at fault."""
        problems = []
        image_format = SUFFIXES.get(output.suffix.lower())
        if image_format is None:
            problems.append(FieldProblem("--output", f"must end in {', '.join(SUFFIXES)}; it is {output.name}"))
        width, _, height = size.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and len(size) <= MAX_SIZE_CHARACTERS):
            problems.append(FieldProblem("--size", f"must look like 1024x768; it is {size[:MAX_SIZE_CHARACTERS]}"))
            width, height = "1024", "768"
        try:
            request = GenerationRequest(
                prompt=prompt,
                seed=secrets.randbelow(RANDOM_SEED_BOUND) if seed is None else seed,
                model=SKETCH_ID,
                width=int(width),
                height=int(height),
                steps=steps,
                count=count,
                image_format=image_format or ImageFormat.PNG,
            )
        except InvalidRequest as exc:
            raise InvalidRequest(*problems, *exc.problems) from exc
        if problems:
            raise InvalidRequest(*problems)
        return cls(request, output)

    def path(self, place: int) -> Path:
        """Return the file of image `place`: the output itself, or numbered when there are several."""
        if self.request.count == 1:
            return self.output
        return self.output.with_stem(f"{self.output.stem}-{place}")


def paint(job: Job, model: str, words: Console, settings: EngineSettings) -> list[Path]:
    """Paint with a progress bar and write the files; return their paths.

    Raises `WeightsError` for a model that can't be used, `SettingsError` for a device that is not here.
    """
    # What takes minutes is said; what takes a moment is not.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("allaprima.weights").setLevel(logging.INFO)
    prepare_device(settings)
    weights_dir = settings.weights_dir or default_folder()
    files = open_model(find_path(model, weights_dir), settings.tokenizer_dir, weights_dir)
    painter = build_painter(files, SafetyChecker.load(), settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=words, transient=True) as progress:
        task = progress.add_task("painting", total=job.request.steps)

        def on_step(done: StepDone) -> None:
            progress.update(task, completed=done.step)

        painting = painter.paint(job.request, never_cancelled, StepCallback(on_step))
    for warning in painting.warnings:
        words.print(f"note: {warning}", markup=False)
    written = []
    for place, image in enumerate(painting.images):
        path = job.path(place)
        try:
            path.write_bytes(image.data)
        except OSError as exc:
            raise InvalidRequest(FieldProblem("--output", f"{path} can't be written: {exc.strerror}")) from exc
        if image.is_flagged:
            words.print(f"note: {path} is black, since the safety checker withheld the picture", markup=False)
        written.append(path)
    seeds = ", ".join(str(image.seed) for image in painting.images)
    words.print(f"painted by {painting.model} in {painting.timings.inference:.2f} s, seed {seeds}", markup=False)
    return written
