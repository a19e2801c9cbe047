"""What is generated: the one request type, and the images that come of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from allaprima.domain.fields import (
    DEFAULT_HEIGHT,
    DEFAULT_STEPS,
    DEFAULT_WIDTH,
    MAX_SEED,
    Count,
    Flag,
    Prompt,
    Seed,
    Share,
    Side,
    Steps,
    Text,
    choice,
    problems_in,
    refusal,
)
from allaprima.domain.models import Precision
from allaprima.errors import InvalidRequest


class ImageFormat(StrEnum):
    """How an image file is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """The format's media type."""
        return f"image/{self.value}"


class LongPromptPolicy(StrEnum):
    """What happens to a prompt of more tokens than the model reads."""

    #: The rest is not read, and a warning says so.
    TRUNCATE = "truncate"
    REFUSE = "refuse"


class _InMetadata:
    """Marks the fields that decide the pixels of an image, which its file carries."""


_IN_METADATA = _InMetadata()


class GenerationRequest(BaseModel):
    """What a client asked to generate, complete and within limits: a request that exists can be generated as it stands.

    Each field is declared here alone: its bounds, its description, its JSON form in a job's row, and whether an
    image file carries it as metadata. A dialect maps its own names onto these fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[Prompt, _IN_METADATA] = Field(description="What to generate.")
    model: Annotated[Text, _IN_METADATA] = Field(description="Id of the loaded model that generates.")
    width: Annotated[Side, _IN_METADATA] = Field(DEFAULT_WIDTH, description="Width in pixels.")
    height: Annotated[Side, _IN_METADATA] = Field(DEFAULT_HEIGHT, description="Height in pixels.")
    steps: Annotated[Steps, _IN_METADATA] = Field(DEFAULT_STEPS, description="Denoising steps.")
    count: Count = Field(1, description="Number of images; image i has seed + i.")
    seed: Annotated[Seed, _IN_METADATA] = Field(description="Seed of the first image; drawn below 2**32 when absent.")
    check_safety: Flag = Field(default=True, description="Run the safety checker (default true).")
    image_format: Annotated[ImageFormat, BeforeValidator(choice(*ImageFormat))] = Field(
        ImageFormat.PNG, description="File format."
    )
    on_long_prompt: Annotated[LongPromptPolicy, BeforeValidator(choice(*LongPromptPolicy))] = Field(
        LongPromptPolicy.TRUNCATE,
        description="What to do with more tokens than the model reads; truncate, the default, adds a warning.",
    )
    safety_threshold: Share | None = Field(
        None, description="Score from which an image is withheld, within what the operator allows."
    )

    @field_validator("seed")
    @classmethod
    def _leaves_room_for_all_images(cls, seed: int, info: ValidationInfo) -> int:
        count = info.data.get("count", 1)
        if seed + count - 1 > MAX_SEED:
            raise refusal(f"must leave room for {count} images: the last has seed + {count - 1}")
        return seed

    @classmethod
    def checked(cls, **values: Any) -> "GenerationRequest":
        """Return the request. Raises `InvalidRequest` naming every field that is out of its bounds."""
        try:
            return cls(**values)
        except ValidationError as exc:
            raise InvalidRequest(*problems_in(exc)) from exc

    def changed(self, **fields: Any) -> "GenerationRequest":
        """Return a copy with other values. Raises `InvalidRequest`."""
        return self.checked(**{name: getattr(self, name) for name in type(self).model_fields} | fields)

    def metadata(self, index: int) -> dict[str, Any]:
        """Return what decides the pixels of image `index`, as its file carries it; `seed` is the image's own."""
        names = [name for name, info in type(self).model_fields.items() if _IN_METADATA in info.metadata]
        return {name: getattr(self, name) for name in names} | {"seed": self.seed + index}

    @property
    def megapixels(self) -> float:
        """Megapixels of one image."""
        return self.width * self.height / 1e6


class Timings(BaseModel):
    """Measured seconds of each phase of one request."""

    model_config = ConfigDict(frozen=True)

    text: float
    #: One entry per step, all images of the request together.
    steps: tuple[float, ...]
    decode: float
    safety: float
    #: Encoding the pixels as files; not part of `inference`.
    encode: float

    @property
    def inference(self) -> float:
        """Seconds of the model's own work: text, steps, decode and safety."""
        return self.text + sum(self.steps) + self.decode + self.safety

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, the steps added up, in order."""
        return {
            "text": self.text,
            "steps": sum(self.steps),
            "decode": self.decode,
            "safety": self.safety,
            "encode": self.encode,
        }


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One finished image."""

    #: The encoded file.
    data: bytes = field(repr=False)
    #: The image's own seed.
    seed: int
    #: Probability from 0 to 1 that the image is unsafe to show; None when it was not checked.
    nsfw_score: float | None
    #: Whether the image was withheld; `data` is then a black image of the same size.
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """Everything that one request produced."""

    model: str
    revision: str
    precision: Precision
    images: tuple[GeneratedImage, ...]
    timings: Timings
    #: What the client should know, a sentence each.
    warnings: tuple[str, ...]
