"""Jobs: the durable form of a request, its options, and what it ends with."""

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

    queued -> running (leased), queued -> failed (its start deadline passed, or its request can't be read), queued ->
    succeeded (the result cache had it), running -> queued (the server stopped or died), running -> succeeded | failed,
    queued or running -> cancelled. Succeeded, failed and cancelled are final.
    """

    #: Accepted and waiting.
    QUEUED = "queued"
    #: Handed to the engine.
    RUNNING = "running"
    #: Generated; its images, its usage and its charge are in the store.
    SUCCEEDED = "succeeded"
    #: Ended without an image; `error_code` and `error_message` say why.
    FAILED = "failed"
    #: Stopped on request.
    CANCELLED = "cancelled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class Priority(StrEnum):
    """Priority among the jobs of one key. LOW jobs run only when nothing else is queued."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Delivery(StrEnum):
    """How the images of a result reach the client."""

    LINKS = "links"
    BASE64 = "base64"
    #: Data URIs in place of links.
    DATA_URIS = "data_uris"
    #: Base64, and data URIs in place of links.
    BASE64_AND_DATA_URIS = "base64_and_data_uris"

    @property
    def has_base64(self) -> bool:
        """Whether the answer holds the files in base64."""
        return self in (Delivery.BASE64, Delivery.BASE64_AND_DATA_URIS)

    @property
    def has_data_uris(self) -> bool:
        """Whether the answer holds data URIs in place of links."""
        return self in (Delivery.DATA_URIS, Delivery.BASE64_AND_DATA_URIS)


class JobOptions(BaseModel):
    """How a job is treated: everything that a client asked except what to generate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Text = Field(description="Id or alias of a served model.")
    priority: Annotated[Priority, BeforeValidator(choice(*Priority))] = Field(
        Priority.NORMAL, description="Order among the key's own jobs; low runs only while nothing else is queued."
    )
    group_id: GroupId | None = Field(None, description="A name that several jobs share, to list or cancel them by.")
    image_ttl_s: Seconds | None = Field(None, description="Seconds that the images are kept; the server's default.")
    webhook_url: Text | None = Field(None, description="Receives a signed webhook when the job ends.")
    store: Flag = Field(
        default=True,
        description="false: keep neither prompt nor images; they come in the answer, once. Default true.",
    )
    use_cache: Flag = Field(
        default=False, description="Return cached images of an identical request if available. Default false."
    )
    delivery: Delivery = Delivery.LINKS
    #: Name of the wire format in which the request came, and its webhook is sent.
    dialect: str = ""
    #: `api` or `playground`.
    source: str = "api"
    #: Scheme and host of links where no HTTP request is at hand: in webhooks.
    base_url: str = ""
    client_request_id: str | None = None
    #: W3C trace context, as the client sent it.
    traceparent: str | None = None
    #: What the client should know before anything is generated, a sentence each.
    warnings: tuple[str, ...] = ()


class JobResult(BaseModel):
    """What a succeeded job reports, apart from its images."""

    model_config = ConfigDict(frozen=True)

    #: The model that generated.
    model: str
    revision: str
    precision: str
    credits: int
    timings: Timings
    warnings: tuple[str, ...] = ()
    #: Whether the images were generated for an equal request before.
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. Times are unix seconds."""

    id: str
    account_id: str
    key_id: str
    state: JobState
    request: GenerationRequest
    created_at: float
    options: JobOptions
    started_at: float | None = None
    finished_at: float | None = None
    #: Number of leases so far; the fencing token of a result.
    attempt: int = 0
    #: How often the server died while the job ran.
    crashes: int = 0
    error_code: str | None = None
    error_message: str | None = None
    result: JobResult | None = None
    #: Estimated seconds of compute.
    predicted_s: float = 0.0
    #: Start deadline.
    start_by: float | None = None
    cancel_asked_at: float | None = None
    #: Credits held for it.
    held: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store. Times are unix seconds."""

    id: str
    job_id: str
    #: Index within the job, from 0.
    position: int
    object_name: str
    content_type: str
    size_bytes: int
    #: Of the file, hex.
    sha256: str
    seed: int
    nsfw_score: float | None
    is_flagged: bool
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What a generated job ends with in the store."""

    result: JobResult
    images: tuple[StoredImage, ...]
    #: Images that are charged: generated and not withheld.
    charged: int
    megapixels: float
    #: Key under which the result cache finds these images, if it may.
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that may be accepted as a job: everything that the body and the headers said, validated."""

    key: ApiKey
    request: GenerationRequest
    options: JobOptions
    #: The id that the job will have, a UUIDv7.
    job_id: str
    claim: IdempotencyClaim | None = None
    #: Seconds within which the job must start.
    start_within_s: float | None = None
    #: Whether only an estimate is asked for.
    dry_run: bool = False
    #: Whether the job is cancelled when its client disconnects.
    cancel_on_disconnect: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request would cost and when it would run."""

    request: GenerationRequest
    options: JobOptions
    #: Tokens of the prompt, and most that its model reads.
    tokens: int
    max_tokens: int
    credits: int
    #: Estimated compute seconds.
    seconds: float
    #: Unix seconds.
    predicted_start: float


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where an unfinished job stands. Times are unix seconds; a value without meaning for its state is None."""

    #: 1: the next.
    queue_position: int | None = None
    predicted_start: float | None = None
    predicted_finish: float | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs of an account are listed; None: any."""

    state: JobState | None = None
    group_id: str | None = None
    key_id: str | None = None
    #: Only jobs older than the one with this id.
    before: str | None = None


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What the queue holds."""

    #: Jobs that wait, and jobs that wait or run.
    queued: int
    unfinished: int
    #: Estimated compute seconds of those that wait.
    queued_s: float

    @property
    def job_s(self) -> float:
        """Mean estimated seconds of a waiting job; 0 where none waits."""
        return self.queued_s / self.queued if self.queued else 0.0
