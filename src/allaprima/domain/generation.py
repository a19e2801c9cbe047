"""Generation requests and their results."""

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
    """Encoding of an image file."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """The media type of the format."""
        return f"image/{self.value}"


class LongPromptPolicy(StrEnum):
    """Treatment of a prompt that has more tokens than the model reads."""

    #: The model ignores the rest, and the result contains a warning.
    TRUNCATE = "truncate"
    #: The request is invalid.
    REFUSE = "refuse"


class _InMetadata:
    """Marks fields that determine the pixels of an image and are stored in its file as metadata."""


_IN_METADATA = _InMetadata()


class GenerationRequest(BaseModel):
    """A complete and valid request for images.

    This class is the only declaration of each field: its bounds, its description, its JSON form in the store, and
    whether an image file contains it as metadata. A dialect maps its own names to these fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[Prompt, _IN_METADATA] = Field(description="Description of the image.")
    model: Annotated[Text, _IN_METADATA] = Field(description="Id of the loaded model that generates the images.")
    width: Annotated[Side, _IN_METADATA] = Field(DEFAULT_WIDTH, description="Width in pixels.")
    height: Annotated[Side, _IN_METADATA] = Field(DEFAULT_HEIGHT, description="Height in pixels.")
    steps: Annotated[Steps, _IN_METADATA] = Field(DEFAULT_STEPS, description="Denoising steps.")
    count: Count = Field(1, description="Number of images; image i, counted from 0, has seed + i.")
    seed: Annotated[Seed, _IN_METADATA] = Field(description="Seed of the first image; default: random below 2**32.")
    check_safety: Flag = Field(default=True, description="Run the safety checker (default true).")
    image_format: Annotated[ImageFormat, BeforeValidator(choice(*ImageFormat))] = Field(
        ImageFormat.PNG, description="File format of the images."
    )
    on_long_prompt: Annotated[LongPromptPolicy, BeforeValidator(choice(*LongPromptPolicy))] = Field(
        LongPromptPolicy.TRUNCATE,
        description="Treatment of a prompt with more tokens than the model reads; truncate (default) adds a warning.",
    )
    safety_threshold: Share | None = Field(
        None, description="Safety score from which an image is withheld, within the operator's limits."
    )

    @field_validator("seed")
    @classmethod
    def _check_last_seed(cls, seed: int, info: ValidationInfo) -> int:
        count = info.data.get("count", 1)
        if seed + count - 1 > MAX_SEED:
            raise refusal(f"must be at most {MAX_SEED - count + 1}, because image {count - 1} has seed + {count - 1}")
        return seed

    @classmethod
    def checked(cls, **values: Any) -> "GenerationRequest":
        """Return a request. Raises `InvalidRequest`, which names every invalid field."""
        try:
            return cls(**values)
        except ValidationError as exc:
            raise InvalidRequest(*problems_in(exc)) from exc

    def changed(self, **fields: Any) -> "GenerationRequest":
        """Return a copy with changed fields. Raises `InvalidRequest`."""
        return self.checked(**{name: getattr(self, name) for name in type(self).model_fields} | fields)

    def metadata(self, index: int) -> dict[str, Any]:
        """Return the metadata of the file of image `index`: all fields that determine its pixels, with its own seed."""
        names = [name for name, info in type(self).model_fields.items() if _IN_METADATA in info.metadata]
        return {name: getattr(self, name) for name in names} | {"seed": self.seed + index}

    @property
    def megapixels(self) -> float:
        """Megapixels of one image."""
        return self.width * self.height / 1e6


class Timings(BaseModel):
    """Measured seconds of each phase of a request."""

    model_config = ConfigDict(frozen=True)

    text: float
    #: One entry per step, all images of the request together.
    steps: tuple[float, ...]
    decode: float
    safety: float
    #: Encoding of the image files; not part of `inference`.
    encode: float

    @property
    def inference(self) -> float:
        """Total seconds of text, steps, decode and safety."""
        return self.text + sum(self.steps) + self.decode + self.safety

    @property
    def total(self) -> float:
        """Total seconds of all phases."""
        return self.inference + self.encode

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase in the order of the phases; `steps` is the sum of all steps."""
        return {
            "text": self.text,
            "steps": sum(self.steps),
            "decode": self.decode,
            "safety": self.safety,
            "encode": self.encode,
        }


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One generated image."""

    #: The encoded file.
    data: bytes = field(repr=False)
    #: The seed of this image.
    seed: int
    #: Probability from 0 to 1 that the image is unsafe; None if the safety checker did not run.
    nsfw_score: float | None
    #: Whether the image was withheld; `data` is then a black image of the same size.
    is_flagged: bool


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The result of a request."""

    model: str
    revision: str
    precision: Precision
    images: tuple[GeneratedImage, ...]
    timings: Timings
    #: Messages to the client, one sentence each.
    warnings: tuple[str, ...]
