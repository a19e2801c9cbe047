"""The nouns that every floor shares: what is asked (`ImageRequest`) and what was painted (`Painting`).

The limits of a request stand here once; the HTTP dialects and the command line both ask the `*_problem` functions, so
that a value is refused with the same words wherever it comes from.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from allaprima.errors import FieldProblem, InvalidRequest

#: Smallest and largest side of a picture in pixels; every side is a multiple of `SIDE_STEP`.
MIN_SIDE, MAX_SIDE, SIDE_STEP = 64, 1536, 32
DEFAULT_WIDTH, DEFAULT_HEIGHT = 1024, 768
MAX_STEPS, DEFAULT_STEPS = 12, 4
MAX_COUNT = 4
#: Longest prompt in characters.
MAX_PROMPT = 4000
MAX_SEED = 2**63 - 1
#: A seed that nobody asked for is drawn below this.
RANDOM_SEED_BOUND = 2**32


class ImageFormat(StrEnum):
    """How a picture is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """The format's media type."""
        return f"image/{self.value}"


class LongPrompt(StrEnum):
    """What becomes of a prompt of more tokens than the model reads."""

    #: The rest is not read, and a warning says so.
    TRUNCATE = "truncate"
    REFUSE = "refuse"


class Priority(StrEnum):
    """Which of a key's jobs go first. Low ones run while nobody's others wait."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Precision(StrEnum):
    """How a model's numbers are kept. Below 16 bits only the linears of the blocks, which are nearly all of FLUX."""

    FP32 = "fp32"
    BF16 = "bf16"
    #: float8 weights and activations, on GPUs that multiply them.
    FP8 = "fp8"
    #: int8 weights and activations.
    INT8 = "int8"
    #: int8 weights.
    INT8WO = "int8wo"
    #: Four-bit weights.
    INT4WO = "int4wo"


def prompt_problem(prompt: str) -> str | None:
    """Say what is wrong with a prompt, if anything."""
    if not prompt.strip():
        return "must say what to paint; it is empty"
    if len(prompt) > MAX_PROMPT:
        return f"must have at most {MAX_PROMPT} characters; it has {len(prompt)}"
    if "\x00" in prompt:
        return "must not contain the NUL character"
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        return "must be valid Unicode; it contains a lone surrogate"
    return None


def side_problem(px: int) -> str | None:
    """Say what is wrong with a width or height in pixels, if anything, and the nearest legal one."""
    if MIN_SIDE <= px <= MAX_SIDE and px % SIDE_STEP == 0:
        return None
    return (
        f"must be a multiple of {SIDE_STEP} from {MIN_SIDE} to {MAX_SIDE}; "
        f"the nearest to {_shown(px)} is {nearest_side(px)}"
    )


def nearest_side(px: float) -> int:
    """Return the legal side nearest to a number of pixels."""
    # Clamped first: a client's number may be too large to divide.
    return round(min(MAX_SIDE, max(MIN_SIDE, px)) / SIDE_STEP) * SIDE_STEP


def steps_problem(steps: int) -> str | None:
    """Say what is wrong with a number of steps, if anything."""
    return None if 1 <= steps <= MAX_STEPS else f"must be from 1 to {MAX_STEPS}; it is {_shown(steps)}"


def count_problem(count: int) -> str | None:
    """Say what is wrong with a number of images, if anything."""
    return None if 1 <= count <= MAX_COUNT else f"must be from 1 to {MAX_COUNT}; it is {_shown(count)}"


def seed_problem(seed: int, count: int = 1) -> str | None:
    """Say what is wrong with a seed for that many images, if anything; image i is painted with seed + i."""
    if not 0 <= seed <= MAX_SEED:
        return f"must be from 0 to {MAX_SEED}; it is {_shown(seed)}"
    if seed + count - 1 > MAX_SEED:
        return f"must leave room for {count} images: the last is painted with seed + {count - 1}"
    return None


def _shown(number: int) -> str:
    return str(number) if abs(number) < 10**24 else "far outside"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a client asked, complete and legal: a request that exists can be painted as it stands.

    Raises `InvalidRequest` naming every field that is out of its limits.
    """

    prompt: str
    seed: int
    #: The id of the loaded model that paints.
    model: str
    width: int = DEFAULT_WIDTH
    height: int = DEFAULT_HEIGHT
    steps: int = DEFAULT_STEPS
    #: Number of images; image i has seed + i.
    count: int = 1
    check_safety: bool = True
    image_format: ImageFormat = ImageFormat.PNG
    on_long_prompt: LongPrompt = LongPrompt.TRUNCATE
    #: The score from 0 to 1 from which a picture is withheld; None: the engine's own.
    safety_threshold: float | None = None

    def __post_init__(self) -> None:
        found = {
            "prompt": prompt_problem(self.prompt),
            "width": side_problem(self.width),
            "height": side_problem(self.height),
            "steps": steps_problem(self.steps),
            "count": count_problem(self.count),
            "seed": seed_problem(self.seed, self.count),
        }
        problems = [FieldProblem(name, message) for name, message in found.items() if message]
        if problems:
            raise InvalidRequest(*problems)

    def to_json(self) -> dict[str, Any]:
        """Return the request as plain values, for a job's row."""
        return asdict(self) | {"image_format": self.image_format.value, "on_long_prompt": self.on_long_prompt.value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ImageRequest":
        """Undo `to_json`."""
        # Jobs of earlier versions know no long prompts.
        on_long_prompt = LongPrompt(values.get("on_long_prompt", LongPrompt.TRUNCATE))
        return cls(**values | {"image_format": ImageFormat(values["image_format"]), "on_long_prompt": on_long_prompt})


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is to be treated: all that a client asked but what to paint."""

    #: The id that was asked for; another model may have to stand in for it.
    model: str
    priority: Priority = Priority.NORMAL
    group_id: str | None = None
    #: Seconds that the pictures are kept; None: the server's own.
    image_ttl_s: float | None = None
    webhook_url: str | None = None
    #: False: neither prompt nor pictures outlive the answer.
    is_kept: bool = True
    #: Whether pictures that were painted before may be given.
    use_cache: bool = False
    #: Whether `data` gives pictures in base64, and `images` as data URIs, instead of links.
    in_base64: bool = False
    as_data_uri: bool = False
    #: `api` or `playground`.
    origin: str = "api"
    #: What links start with where no request says so: in webhooks.
    base_url: str = ""
    client_request_id: str | None = None
    #: Of the W3C's trace context, as it came.
    traceparent: str | None = None
    #: What the client should know before anything is painted, a sentence each.
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the terms as plain values, for a job's row."""
        return asdict(self) | {"priority": self.priority.value, "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Terms":
        """Undo `to_json`."""
        priority = Priority(values.get("priority", Priority.NORMAL))
        return cls(**values | {"priority": priority, "warnings": tuple(values.get("warnings", ()))})


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How long a prompt is for a model."""

    used: int
    #: How many the model reads.
    room: int

    @property
    def over(self) -> int:
        """How many are not read."""
        return max(0, self.used - self.room)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is loaded, or will be soon."""

    id: str
    #: Hash of its weights. Empty while it loads.
    revision: str
    #: Shown to people.
    name: str
    description: str
    #: How its numbers are kept. None while it loads.
    precision: Precision | None = None
    #: What multiplies them, with its version: pictures may differ by a bit between two of these.
    kernels: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """Measured seconds of each phase of one request."""

    text: float
    #: One entry per step, all images of the request together.
    steps: tuple[float, ...]
    decode: float
    safety: float
    #: Making the file out of the pixels; not part of `inference`.
    encode: float

    @property
    def inference(self) -> float:
        """Seconds of the model's own work: text, steps, decode and safety."""
        return self.text + sum(self.steps) + self.decode + self.safety

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, the steps taken together, in order."""
        return {
            "text": self.text,
            "steps": sum(self.steps),
            "decode": self.decode,
            "safety": self.safety,
            "encode": self.encode,
        }


@dataclass(frozen=True, slots=True)
class PaintedImage:
    """One finished picture."""

    #: The encoded file.
    data: bytes = field(repr=False)
    #: The image's own seed.
    seed: int
    #: Probability from 0 to 1 that it is unsafe to show; None when it was not looked at.
    nsfw_score: float | None
    #: Whether the picture was withheld; `data` is then a black picture of the same size.
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class Painting:
    """Everything that came of one request."""

    model: str
    revision: str
    precision: Precision
    images: tuple[PaintedImage, ...]
    timings: Timings
    #: What the client should know, a sentence each.
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of a request was just finished."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """How one image of a request looks by now."""

    #: A JPEG, which may be smaller than the picture will be. Empty when it is withheld.
    data: bytes = field(repr=False)
    nsfw_score: float | None
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """How a request looks after a step."""

    step: int
    steps: int
    images: tuple[PreviewImage, ...]


class Progress(Protocol):
    """Who hears how a request gets on. Called in the engine's thread; to be quick."""

    def started(self) -> None:
        """The engine begins with this request."""

    def step(self, done: StepDone) -> None:
        """A step was finished."""

    def wants_previews(self) -> bool:
        """Whether a preview of the step just finished would be seen."""

    def preview(self, preview: Preview) -> None:
        """A preview that was wanted."""


class StepsOnly(Progress):
    """Hears of steps, if of anything, and wants no previews."""

    def __init__(self, on_step: Callable[[StepDone], None] | None = None) -> None:
        self._on_step = on_step

    def started(self) -> None:
        """See `Progress`."""

    def step(self, done: StepDone) -> None:
        """See `Progress`."""
        if self._on_step:
            self._on_step(done)

    def wants_previews(self) -> bool:
        """See `Progress`."""
        return False

    def preview(self, preview: Preview) -> None:
        """See `Progress`."""
