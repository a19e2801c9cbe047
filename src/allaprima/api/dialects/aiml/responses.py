"""Bodies of successful answers: the superset of what the hosted platform and OpenAI document."""

from pydantic import BaseModel, Field


class AnswerImage(BaseModel):
    """One picture, in order."""

    id: str | None = Field(description="For /v1/images/{id}; null when nothing was stored.")
    url: str | None = Field(
        description="A link that works without a key until expires_at, or a data URI in sync_mode; null with neither."
    )
    width: int
    height: int
    content_type: str
    seed: int = Field(description="The image's own seed.")
    sha256: str | None = Field(description="Of the file, hex; null when nothing was stored.")
    nsfw_score: float | None = Field(description="0 to 1; null when the picture was not looked at.")
    expires_at: int | None = Field(description="Unix seconds when the link and the picture end.")


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
    is_cached: bool = Field(description="Whether the pictures were painted for an equal request before.")
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


class Size(BaseModel):
    """A size in pixels."""

    width: int
    height: int


class JobRequest(BaseModel):
    """What a job is to paint, with everything that was left out filled in."""

    model: str
    prompt: str
    image_size: Size
    num_images: int
    num_inference_steps: int
    seed: int
    enable_safety_checker: bool
    output_format: str
    on_long_prompt: str
    priority: str


class JobError(BaseModel):
    """What a job failed of."""

    code: str
    message: str | None


class JobAnswer(BaseModel):
    """A job as it stands. Times are unix seconds."""

    id: str
    object: str
    status: str = Field(description="queued, running, succeeded, failed or cancelled.")
    created_at: float
    started_at: float | None
    finished_at: float | None
    queue_position: int | None = Field(description="1: the next. null when it is not queued, and in lists.")
    predicted_start: float | None
    predicted_finish: float | None
    group_id: str | None
    request: JobRequest
    result: ImagesAnswer | None = Field(description="What the images endpoint would have answered.")
    error: JobError | None


class JobsAnswer(BaseModel):
    """A page of jobs, newest first."""

    object: str
    data: list[JobAnswer]
    has_more: bool
    next_cursor: str | None


class QuoteAnswer(BaseModel):
    """What a request would come to."""

    object: str
    model: str
    painted_by: str
    tokens: int = Field(description="Of the prompt.")
    max_tokens: int = Field(description="How many of them the model reads.")
    image_size: Size
    num_images: int
    num_inference_steps: int
    usage: AnswerUsage
    seconds: float = Field(description="That it would keep the engine.")
    predicted_start: float = Field(description="Unix seconds.")
    predicted_finish: float = Field(description="Unix seconds.")
    warnings: list[str]


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: bool


class SignBody(BaseModel):
    """How long a link is to work."""

    expires_in: float | None = Field(None, ge=60, description="Seconds; until the picture's own end by default.")


class SignedImage(BaseModel):
    """A new link to a picture."""

    id: str
    url: str
    expires_at: int = Field(description="Unix seconds when the link ends.")
