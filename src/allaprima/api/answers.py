"""Bodies of successful answers: the superset of what the hosted platform and OpenAI document."""

from pydantic import BaseModel, Field


class AnswerImage(BaseModel):
    """One picture, in order."""

    url: str = Field(description="A link that works without a key until expires_at, or a data URI in sync_mode.")
    width: int
    height: int
    content_type: str
    seed: int = Field(description="The image's own seed.")
    sha256: str = Field(description="Of the file, hex.")
    nsfw_score: float | None = Field(description="0 to 1; null when the picture was not looked at.")
    expires_at: int = Field(description="Unix seconds when the link and the picture end.")


class AnswerData(BaseModel):
    """One picture as OpenAI's clients read it: a link or base64, never both."""

    url: str | None = None
    b64_json: str | None = None


class AnswerTimings(BaseModel):
    """Measured seconds."""

    inference: float = Field(description="text + steps + decode + safety.")
    text: float
    steps: list[float]
    decode: float
    safety: float
    encode: float = Field(description="Making the files; not part of inference.")


class AnswerUsage(BaseModel):
    """What the request cost."""

    credits_used: int
    usd_spent: float


class AnswerMeta(BaseModel):
    """About the painting."""

    model: str = Field(description="The model that painted.")
    revision: str = Field(description="Hash of its weights.")
    precision: str | None = Field(description="How its numbers are kept, such as int8; null for old jobs.")
    usage: AnswerUsage
    warnings: list[str]


class ImagesAnswer(BaseModel):
    """The finished pictures."""

    created: int = Field(description="Unix seconds.")
    images: list[AnswerImage]
    data: list[AnswerData]
    timings: AnswerTimings
    seed: int = Field(description="Seed of the first image; image i has seed + i.")
    has_nsfw_concepts: list[bool]
    prompt: str
    meta: AnswerMeta
