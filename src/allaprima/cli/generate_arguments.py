"""The arguments of `allaprima generate`, checked before anything slow is imported."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from allaprima.domain.fields import RANDOM_SEED_BOUND, problems_in
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.domain.models import SKETCH_ID
from allaprima.errors import FieldProblem, InvalidRequest

SUFFIXES = {
    ".png": ImageFormat.PNG,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".webp": ImageFormat.WEBP,
}

#: Longest accepted text of a size, because Python refuses to parse numbers with thousands of digits.
MAX_SIZE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class GenerateArguments:
    """The arguments of `allaprima generate`: the request and its output file."""

    request: GenerationRequest
    output: Path

    @classmethod
    def parse(
        cls, prompt: str, *, output: Path, size: str, steps: int, seed: int | None, count: int
    ) -> "GenerateArguments":
        """Return the parsed arguments. Raises `InvalidRequest`, which names every invalid option."""
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
        except ValidationError as exc:
            raise InvalidRequest(*problems, *problems_in(exc)) from exc
        if problems:
            raise InvalidRequest(*problems)
        return cls(request, output)

    def path(self, index: int) -> Path:
        """Return the file of an image. The index from 0 is part of its name if there are several images."""
        if self.request.count == 1:
            return self.output
        return self.output.with_stem(f"{self.output.stem}-{index}")
