"""Jobs: the durable form of a request, with its options, its state and its outcome."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from allaprima.domain.accounts import ApiKey
from allaprima.domain.fields import Flag, GroupId, Seconds, Text, choice
from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.idempotency import IdempotencyClaim


class JobState(StrEnum):
    """State of a job.

    Transitions: queued -> running (leased), queued -> failed (the start deadline passed, or the stored request is
    invalid), queued -> succeeded (result cache), running -> queued (the server stopped or crashed), running ->
    succeeded | failed, queued | running -> cancelled. Succeeded, failed and cancelled are final.
    """

    #: Accepted and waiting.
    QUEUED = "queued"
    #: Leased and passed to the engine.
    RUNNING = "running"
    #: Generated; images, usage and charge are stored.
    SUCCEEDED = "succeeded"
    #: Ended without images; `error_code` and `error_message` give the reason.
    FAILED = "failed"
    #: Stopped at the client's request.
    CANCELLED = "cancelled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class Priority(StrEnum):
    """Priority among the jobs of one key. LOW jobs run only when nothing else is queued."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Delivery(StrEnum):
    """Form in which a response contains the images."""

    LINKS = "links"
    BASE64 = "base64"
    #: Data URIs instead of links.
    DATA_URIS = "data_uris"
    #: Base64, and data URIs instead of links.
    BASE64_AND_DATA_URIS = "base64_and_data_uris"

    @property
    def has_base64(self) -> bool:
        """Whether the response contains the files in base64."""
        return self in (Delivery.BASE64, Delivery.BASE64_AND_DATA_URIS)

    @property
    def has_data_uris(self) -> bool:
        """Whether the response contains data URIs instead of links."""
        return self in (Delivery.DATA_URIS, Delivery.BASE64_AND_DATA_URIS)


class JobOptions(BaseModel):
    """The options of a job: all parts of a client's request that do not affect the pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Text = Field(description="Id or alias of a served model.")
    priority: Annotated[Priority, BeforeValidator(choice(*Priority))] = Field(
        Priority.NORMAL, description="Order among the key's own jobs; low jobs run only if no other job is queued."
    )
    group_id: GroupId | None = Field(
        None, description="Name of a group of jobs, by which they can be listed and cancelled."
    )
    image_ttl_s: Seconds | None = Field(
        None, description="Storage time of the images in seconds; default: the server's."
    )
    webhook_url: Text | None = Field(None, description="URL that receives a signed webhook when the job ends.")
    store: Flag = Field(
        default=True,
        description="If false, neither prompt nor images are stored; only the response contains them. Default true.",
    )
    use_cache: Flag = Field(
        default=False, description="Return cached images of an identical request if available. Default false."
    )
    delivery: Delivery = Delivery.LINKS
    #: Name of the wire format of the request and of its webhook.
    dialect: str = ""
    #: Source of the request: `api` or `playground`.
    source: str = "api"
    #: Prefix of the key, for the log.
    key_prefix: str = ""
    #: Scheme and host of links in webhooks.
    base_url: str = ""
    client_request_id: str | None = None
    #: The client's W3C trace context.
    traceparent: str | None = None
    #: Messages to the client from the validation of the request, one sentence each.
    warnings: tuple[str, ...] = ()


class JobResult(BaseModel):
    """The result of a succeeded job, without its images."""

    model_config = ConfigDict(frozen=True)

    #: Id of the model that generated the images.
    model: str
    revision: str
    precision: str
    credits: int
    timings: Timings
    warnings: tuple[str, ...] = ()
    #: Whether an earlier identical request generated the images.
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """The current state of a job. Times are in unix seconds."""

    id: str
    account_id: str
    key_id: str
    state: JobState
    request: GenerationRequest
    created_at: float
    options: JobOptions
    started_at: float | None = None
    finished_at: float | None = None
    #: Number of leases so far, which is the fencing token of a result.
    attempt: int = 0
    #: Number of crashes of the server while the job ran.
    crashes: int = 0
    error_code: str | None = None
    error_message: str | None = None
    result: JobResult | None = None
    #: Estimated seconds of compute.
    predicted_s: float = 0.0
    #: Deadline of the start; None: no deadline.
    start_by: float | None = None
    cancel_asked_at: float | None = None
    #: Credits that are held for the job.
    held: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether the job's state is final."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image. Times are in unix seconds."""

    id: str
    job_id: str
    #: Index within the job, from 0.
    position: int
    object_name: str
    content_type: str
    size_bytes: int
    #: SHA-256 of the file, in hexadecimal.
    sha256: str
    seed: int
    nsfw_score: float | None
    is_flagged: bool
    created_at: float
    #: When the image expires, unless it is starred.
    expires_at: float
    #: Whether the image stays until it is unstarred.
    is_starred: bool = False


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The data that is stored when a job succeeds."""

    result: JobResult
    images: tuple[StoredImage, ...]
    #: Number of charged images: generated and not withheld.
    charged: int
    megapixels: float
    #: Key of the images in the result cache; None: they are not cached.
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A validated request, from its body and its headers, before its admission as a job."""

    key: ApiKey
    request: GenerationRequest
    options: JobOptions
    #: The id that the job will have, a UUIDv7.
    job_id: str
    claim: IdempotencyClaim | None = None
    #: Seconds within which the job must start; None: no deadline.
    start_within_s: float | None = None
    #: Whether the client requests an estimate only.
    dry_run: bool = False
    #: Whether the job is cancelled when its client disconnects.
    cancel_on_disconnect: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated cost and time of a request."""

    request: GenerationRequest
    options: JobOptions
    #: Number of tokens of the prompt.
    tokens: int
    #: Largest number of tokens that the model reads.
    max_tokens: int
    credits: int
    #: Estimated compute seconds.
    seconds: float
    #: Estimated start in unix seconds.
    predicted_start: float
    #: What the model makes of the prompt, one sentence each.
    prompt_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Position and times of an unfinished job. Times are in unix seconds; None does not apply to its state."""

    #: 1 is the next job.
    queue_position: int | None = None
    predicted_start: float | None = None
    predicted_finish: float | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """A filter of an account's jobs. None matches any value."""

    state: JobState | None = None
    group_id: str | None = None
    key_id: str | None = None
    #: Id of a job; only older jobs match.
    before: str | None = None


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """A filter of an account's images. None and empty match any value."""

    #: Words that all occur in the prompt, in any letter case.
    words: str = ""
    is_starred: bool = False
    key_id: str | None = None
    #: Id of an image; only older images match.
    before: str | None = None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is."""

    id: str
    state: JobState
    #: Number of leases so far.
    attempt: int
    is_cancel_requested: bool


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The load of the queue."""

    #: Number of queued jobs.
    queued: int
    #: Number of queued and running jobs.
    unfinished: int
    #: Estimated compute seconds of all queued jobs.
    queued_s: float

    @property
    def job_s(self) -> float:
        """Mean estimated compute seconds of a queued job; 0 if no job is queued."""
        return self.queued_s / self.queued if self.queued else 0.0
