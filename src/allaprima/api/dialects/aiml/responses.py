"""Response bodies: a superset of those that the hosted platform and OpenAI document."""

from pydantic import BaseModel, Field


class ImageItem(BaseModel):
    """One generated image."""

    id: str | None = Field(description="Id of the stored image; null with store=false.")
    url: str | None = Field(
        description="Link that needs no key and works until expires_at, or a data URI with sync_mode; else null."
    )
    width: int
    height: int
    content_type: str
    seed: int = Field(description="Seed of this image.")
    sha256: str | None = Field(description="SHA-256 of the file in hexadecimal; null with store=false.")
    nsfw_score: float | None = Field(description="Score of the safety checker, 0 to 1; null if it did not run.")
    expires_at: int | None = Field(
        description="Unix seconds when the image and its link expire; null while it is starred."
    )
    starred: bool = Field(description="Whether the image stays until it is unstarred.")
    thumbnail_url: str | None = Field(
        description="Link to a WebP of at most 320 pixels a side; null for a withheld image and with store=false."
    )


class DataItem(BaseModel):
    """One image in OpenAI's form: either a link or base64."""

    url: str | None = None
    b64_json: str | None = None


class TimingsBody(BaseModel):
    """Measured durations in seconds."""

    inference: float = Field(description="Sum of text, steps, decode and safety.")
    text: float
    steps: list[float]
    decode: float
    safety: float
    encode: float = Field(description="Encoding of the image files; not part of inference.")


class UsageBody(BaseModel):
    """Cost of a request."""

    credits_used: int
    usd_spent: float


class MetaBody(BaseModel):
    """Details of a generation."""

    model: str = Field(description="Model that generated the images.")
    revision: str = Field(description="Hash of the model's weights.")
    precision: str = Field(description="Number format of the weights, such as int8.")
    is_cached: bool = Field(description="Whether an earlier identical request generated the images.")
    usage: UsageBody
    warnings: list[str]


class ImagesResponse(BaseModel):
    """The generated images."""

    created: int = Field(description="Time of the request in unix seconds.")
    images: list[ImageItem]
    data: list[DataItem]
    timings: TimingsBody
    seed: int = Field(description="Seed of the first image; image i, counted from 0, has seed + i.")
    has_nsfw_concepts: list[bool]
    prompt: str
    meta: MetaBody


class Size(BaseModel):
    """Image size in pixels."""

    width: int
    height: int


class JobRequestBody(BaseModel):
    """The request of a job, with the defaults of omitted members."""

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


class ImageEntry(BaseModel):
    """A stored image with the request that generated it."""

    id: str
    object: str
    job_id: str
    position: int = Field(description="Index within the job, from 0.")
    url: str = Field(description="Link that needs no key.")
    thumbnail_url: str | None = Field(
        description="Link to a WebP of at most 320 pixels a side; null for a withheld image."
    )
    content_type: str
    size_bytes: int
    width: int
    height: int
    seed: int = Field(description="Seed of this image.")
    flagged: bool = Field(description="Whether the safety checker withheld the image; it is then black.")
    starred: bool = Field(description="Whether the image stays until it is unstarred.")
    created_at: int = Field(description="Unix seconds.")
    expires_at: int | None = Field(description="Unix seconds when the image expires; null while it is starred.")
    prompt: str
    model: str = Field(description="Model that the request named.")
    served_by: str = Field(description="Model that generated the image.")
    request: JobRequestBody


class ImagesPage(BaseModel):
    """A page of images, newest first."""

    object: str
    data: list[ImageEntry]
    has_more: bool
    next_cursor: str | None


class JobErrorBody(BaseModel):
    """Why a job failed."""

    code: str
    message: str | None


class JobResponse(BaseModel):
    """The current state of a job. Times are in unix seconds."""

    id: str
    object: str
    status: str = Field(description="queued, running, succeeded, failed or cancelled.")
    created_at: float
    started_at: float | None
    finished_at: float | None
    queue_position: int | None = Field(description="1 is the next job; null if the job is not queued, and in lists.")
    predicted_start: float | None
    predicted_finish: float | None
    group_id: str | None
    request: JobRequestBody
    result: ImagesResponse | None = Field(description="Response of the images endpoint; null without stored images.")
    error: JobErrorBody | None


class JobsPage(BaseModel):
    """A page of jobs, newest first."""

    object: str
    data: list[JobResponse]
    has_more: bool
    next_cursor: str | None


class EstimateResponse(BaseModel):
    """Estimated cost and time of a request."""

    object: str
    model: str
    served_by: str = Field(description="Model that would generate the images.")
    tokens: int = Field(description="Number of tokens in the prompt.")
    max_tokens: int = Field(description="Largest number of tokens that the model reads.")
    image_size: Size
    num_images: int
    num_inference_steps: int
    usage: UsageBody
    seconds: float = Field(description="Estimated compute seconds.")
    predicted_start: float = Field(description="Estimated start in unix seconds.")
    predicted_finish: float = Field(description="Estimated end in unix seconds.")
    warnings: list[str]


class ErrorObject(BaseModel):
    """The error in OpenAI's form."""

    message: str
    type: str
    param: str | None = Field(description="First invalid field, as the client named it.")
    code: str


class ErrorBody(BaseModel):
    """The body of every error: the members of the hosted platform, and the `error` object of OpenAI."""

    requestId: str = Field(description="Id of the request, also in the header x-inference-id.")
    statusCode: int
    timestamp: str = Field(description="ISO 8601 with milliseconds, in UTC.")
    path: str
    message: str
    error: ErrorObject
    job_id: str | None = Field(None, description="Id of the accepted job, which continues after this response.")
