"""The arguments of `allaprima generate`, checked before anything slow is imported."""

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from allaprima.cli.image_metadata import read_parameters
from allaprima.cli.outputs import SUFFIXES, Outputs
from allaprima.cli.texts import decoded, has_bytes
from allaprima.domain.fields import DEFAULT_HEIGHT, DEFAULT_STEPS, DEFAULT_WIDTH, RANDOM_SEED_BOUND, problems_in
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.domain.models import SKETCH_ID
from allaprima.errors import FieldProblem, InvalidRequest

#: Longest accepted text of a size, because Python refuses to parse numbers with thousands of digits.
MAX_SIZE_CHARACTERS = 40
#: Stands for stdin or stdout.
STANDARD = "-"
#: The name that a problem of a field has on the command line.
_OPTIONS = {
    "prompt": "PROMPT",
    "width": "--width",
    "height": "--height",
    "steps": "--steps",
    "seed": "--seed",
    "count": "--count",
}


@dataclass(frozen=True, slots=True)
class GivenArguments:
    """The arguments as they were given; None for an omitted one."""

    prompt: str | None = None
    #: File with a prompt on each line.
    prompts: str | None = None
    #: Image file whose parameters apply where no option is given.
    like: Path | None = None
    output: str | None = None
    size: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | None = None
    count: int = 1
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class GenerateArguments:
    """The arguments of `allaprima generate`: requests and their outputs."""

    requests: tuple[GenerationRequest, ...]
    outputs: Outputs
    #: Model that generated the image of `--like`; None: no such image.
    model: str | None = None

    @classmethod
    def parse(cls, given: GivenArguments) -> "GenerateArguments":
        """Return the parsed arguments. Raises `InvalidRequest`, which names every invalid option."""
        earlier = {} if given.like is None else read_parameters(given.like)
        prompts, problems = _prompts(given, earlier)
        outputs = Outputs.parse(given.output, is_forced=given.is_forced)
        problems += outputs.problems(given.count * max(1, len(prompts)))
        values, size_problems = _values(given, earlier)
        problems += size_problems
        values["image_format"] = SUFFIXES.get(outputs.suffix, ImageFormat.PNG)
        requests = []
        for prompt in prompts:
            try:
                requests.append(GenerationRequest(prompt=prompt, model=SKETCH_ID, **values))
            except ValidationError as exc:
                problems += _named(problems_in(exc), given)
        if problems:
            raise InvalidRequest(*dict.fromkeys(problems))
        return cls(tuple(requests), outputs, earlier.get("model"))


def _prompts(given: GivenArguments, earlier: dict[str, Any]) -> tuple[list[str], list[FieldProblem]]:
    sources = [source for source in (given.prompt, given.prompts) if source is not None]
    if len(sources) > 1:
        return [], [FieldProblem("--prompts", "can't be combined with a prompt")]
    if given.prompts is not None:
        lines = _text(given.prompts, "--prompts").splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return found, [] if found else [FieldProblem("--prompts", f"{given.prompts} has no line with a prompt")]
    if given.prompt == STANDARD:
        return _checked(_text(STANDARD, "PROMPT").strip())
    if given.prompt is not None:
        return _checked(given.prompt)
    if "prompt" in earlier:
        return [earlier["prompt"]], []
    return [], [FieldProblem("PROMPT", "is missing; describe the image, or read it from stdin with -")]


def _checked(prompt: str) -> tuple[list[str], list[FieldProblem]]:
    """Return a prompt, which the terminal may have sent in UTF-8 against its settings."""
    text = decoded(prompt)
    return ([], [FieldProblem("PROMPT", "is not UTF-8")]) if has_bytes(text) else ([text], [])


def _text(name: str, option: str) -> str:
    """Return the text of a file or of stdin. Raises `InvalidRequest`."""
    try:
        return decoded(sys.stdin.read()) if name == STANDARD else Path(name).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        reason = "is not UTF-8" if isinstance(exc, UnicodeDecodeError) else f"can't be read: {exc.strerror}"
        raise InvalidRequest(FieldProblem(option, f"{name} {reason}")) from exc


def _values(given: GivenArguments, earlier: dict[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
    """Return the fields of the requests other than the prompt. Options have precedence over the earlier image."""
    width, height, problems = earlier.get("width", DEFAULT_WIDTH), earlier.get("height", DEFAULT_HEIGHT), []
    if given.size is not None:
        left, _, right = given.size.lower().partition("x")
        if left.isdecimal() and right.isdecimal() and len(given.size) <= MAX_SIZE_CHARACTERS:
            width, height = int(left), int(right)
        else:
            shown = given.size[:MAX_SIZE_CHARACTERS]
            problems.append(FieldProblem("--size", f"must look like 1024x768; it is {shown}"))
        if given.width is not None or given.height is not None:
            problems.append(FieldProblem("--size", "can't be combined with --width and --height"))
    seed = earlier.get("seed", secrets.randbelow(RANDOM_SEED_BOUND))
    values = {
        "width": width if given.width is None else given.width,
        "height": height if given.height is None else given.height,
        "steps": earlier.get("steps", DEFAULT_STEPS) if given.steps is None else given.steps,
        "seed": seed if given.seed is None else given.seed,
        "count": given.count,
    }
    return values, problems


def _named(problems: list[FieldProblem], given: GivenArguments) -> list[FieldProblem]:
    """Return problems with the names of the options that the user gave."""
    named = []
    for one in problems:
        if given.size is not None and one.field in ("width", "height"):
            named.append(FieldProblem("--size", f"the {one.field} {one.message}"))
        else:
            named.append(FieldProblem(_OPTIONS.get(one.field, one.field), one.message))
    return named
