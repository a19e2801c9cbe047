"""Response bodies: the superset of what the hosted platform and OpenAI document."""

from pydantic import BaseModel, Field


class ImageItem(BaseModel):
    """One image, in order."""

    id: str | None = Field(description="For /v1/images/{id}; null when nothing was stored.")
    url: str | None = Field(
        description="A link that works without a key until expires_at, or a data URI in sync_mode; null with neither."
    )
    width: int
    height: int
    content_type: str
    seed: int = Field(description="The image's own seed.")
    sha256: str | None = Field(description="Of the file, hex; null when nothing was stored.")
    nsfw_score: float | None = Field(description="0 to 1; null when the safety checker did not run.")
    expires_at: int | None = Field(description="Unix seconds when the link and the image expire.")


class DataItem(BaseModel):
    """One image as OpenAI's clients read it: a link or base64, never both."""

    url: str | None = None
    b64_json: str | None = None


class TimingsBody(BaseModel):
    """Measured seconds."""

    inference: float = Field(description="text + steps + decode + safety.")
    text: float
    steps: list[float]
    decode: float
    safety: float
    encode: float = Field(description="Encoding the files; not part of inference.")


class UsageBody(BaseModel):
    """What the request cost."""

    credits_used: int
    usd_spent: float


class MetaBody(BaseModel):
    """About the generation."""

    model: str = Field(description="The model that generated.")
    revision: str = Field(description="Hash of its weights.")
    precision: str = Field(description="Number format of its weights, such as int8.")
    is_cached: bool = Field(description="Whether the images were generated for an equal request before.")
    usage: UsageBody
    warnings: list[str]


class ImagesResponse(BaseModel):
    """The finished images."""

    created: int = Field(description="Unix seconds.")
    images: list[ImageItem]
    data: list[DataItem]
    timings: TimingsBody
    seed: int = Field(description="Seed of the first image; image i has seed + i.")
    has_nsfw_concepts: list[bool]
    prompt: str
    meta: MetaBody


class Size(BaseModel):
    """A size in pixels."""

    width: int
    height: int


class JobRequestBody(BaseModel):
    """A job's request, with everything that was left out filled in."""

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


class JobErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str | None


class JobResponse(BaseModel):
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
    request: JobRequestBody
    result: ImagesResponse | None = Field(description="What the images endpoint would have answered.")
    error: JobErrorBody | None


class JobsPage(BaseModel):
    """A page of jobs, newest first."""

    object: str
    data: list[JobResponse]
    has_more: bool
    next_cursor: str | None


class EstimateResponse(BaseModel):
    """What a request would cost, and when it would run."""

    object: str
    model: str
    served_by: str = Field(description="The model that would generate.")
    tokens: int = Field(description="Tokens of the prompt.")
    max_tokens: int = Field(description="Most tokens that the model reads.")
    image_size: Size
    num_images: int
    num_inference_steps: int
    usage: UsageBody
    seconds: float = Field(description="Estimated compute seconds.")
    predicted_start: float = Field(description="Unix seconds.")
    predicted_finish: float = Field(description="Unix seconds.")
    warnings: list[str]


class ErrorObject(BaseModel):
    """The error as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = Field(description="The first field at fault, as the client named it.")
    code: str


class ErrorBody(BaseModel):
    """The body of every error: the hosted platform's five members, and the `error` object of OpenAI."""

    requestId: str = Field(description="The exchange's id, also in the header x-inference-id.")
    statusCode: int
    timestamp: str = Field(description="ISO 8601, milliseconds, UTC.")
    path: str
    message: str
    error: ErrorObject
    job_id: str | None = Field(None, description="With 504, and 503 for a job that was accepted: the job that goes on.")
