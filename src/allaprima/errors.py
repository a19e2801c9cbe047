"""Every error that allaprima raises on purpose, in one tree. It knows no HTTP: `api.errors` maps classes to statuses.

Error:
    ├── InvalidRequest          fields that can't be done as asked, all of them
    ├── IdempotencyMismatch     the same Idempotency-Key for another request
    ├── Unauthorized            no API key, or an invalid one
    ├── Forbidden               a valid key, but not for this
    │   ├── ScopeMissing
    │   ├── ManagementOnly      an ordinary key where a management key is needed
    │   ├── OrdinaryOnly        a management key where an ordinary key is needed
    │   ├── OutOfCredits
    │   └── KeyLimitReached
    ├── NotFound
    │   ├── JobNotFound
    │   ├── ImageNotFound
    │   ├── KeyNotFound
    │   ├── AccountNotFound
    │   ├── ModelNotFound
    │   └── EndpointNotFound
    ├── Conflict                not possible in the present state
    │   ├── JobFinished
    │   └── JobUnfinished
    ├── Busy                    carries the seconds after which to retry
    │   ├── QueueFull
    │   ├── RateLimited
    │   ├── Draining
    │   └── IdempotencyInFlight  an equal request is not answered yet
    ├── GenerationTimeout       the wait is over, the job goes on; carries its id
    ├── StartDeadlineMissed     the job did not start before its deadline
    ├── GenerationFailed        the job ended without an image
    ├── Cancelled               the job was cancelled
    ├── WeightsError
    │   ├── WeightsMissing
    │   ├── WeightsCorrupt
    │   ├── WeightsUnsafe       a format that runs code when it is loaded
    │   ├── WeightsTooLarge     more than the free memory or disk
    │   └── PullFailed          the hub does not serve them
    ├── SettingsError           a setting that can't be used
    └── StoreError
        ├── StoreLocked         another server uses the same data folder
        └── StoreUnreachable    a server uses the data folder but does not answer

The docstring of a class is its default message; `code` is its stable name for programs.

"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of a request that can't be done as asked."""

    #: The field as the client named it, such as `image_size.width`.
    field: str
    #: What is wrong and what would be right, a clause without a full stop.
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Error(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    #: Whether the request was refused for lack of room or credits, which the metrics count.
    is_refusal: ClassVar[bool] = False
    #: Whether a client should send the same request again; None: as it does by default for this kind of error.
    retryable: bool | None = None
    #: Seconds after which to send it again.
    retry_after_s: float | None = None
    #: The fields at fault.
    problems: tuple[FieldProblem, ...] = ()
    #: The job that goes on, if one does.
    job_id: str | None = None

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)


class InvalidRequest(Error):
    """The request can't be done as asked."""

    code = "invalid_request"

    def __init__(self, *problems: FieldProblem) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)) or None)


class Unauthorized(Error):
    """This request requires a valid API key. You can create one with `allaprima keys create`."""

    code = "invalid_api_key"


class IdempotencyMismatch(Error):
    """This Idempotency-Key was used for another request. Use a new key for a new request."""

    code = "idempotency_key_reused"


class Forbidden(Error):
    """This key may not do this."""

    code = "forbidden"


class ScopeMissing(Forbidden):
    """This key lacks the scope for this."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key may not do this: it needs the scope {scope}, and must not be a management key")


class ManagementOnly(Forbidden):
    """This needs a management key. The operator makes one with `allaprima keys create --management`."""

    code = "management_key_required"


class OrdinaryOnly(Forbidden):
    """A management key can't do this. Use an ordinary key."""

    code = "ordinary_key_required"


class OutOfCredits(Forbidden):
    """You've run out of credits. Please ask the operator of this server to top up your balance to continue."""

    code = "out_of_credits"
    is_refusal = True


class KeyLimitReached(Forbidden):
    """This key's spend limit is reached. It ends with the limit's window, or when the limit is raised."""

    code = "key_limit_reached"
    is_refusal = True


class NotFound(Error):
    """There is nothing here."""

    code = "not_found"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"


class ImageNotFound(NotFound):
    """There is no such image, or it has expired."""

    code = "image_not_found"


class KeyNotFound(NotFound):
    """There is no key with this prefix."""

    code = "key_not_found"


class AccountNotFound(NotFound):
    """There is no such account."""

    code = "account_not_found"


class ModelNotFound(NotFound):
    """There is no such model here."""

    code = "model_not_found"


class EndpointNotFound(NotFound):
    """There is no such webhook endpoint."""

    code = "endpoint_not_found"


class Conflict(Error):
    """This is not possible in the present state."""

    code = "conflict"
    retryable = False


class JobFinished(Conflict):
    """The job has ended."""

    code = "job_finished"

    def __init__(self, state: str) -> None:
        super().__init__(f"The job has ended: it is {state}")


class JobUnfinished(Conflict):
    """The job has not ended."""

    code = "job_unfinished"

    def __init__(self, state: str) -> None:
        super().__init__(f"The job is {state}; cancel it first, or wait for its end")


class Busy(Error):
    """The server can't take this request now. Try again later."""

    code = "busy"
    is_refusal = True

    def __init__(self, message: str | None = None, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class QueueFull(Busy):
    """Too Many Requests: the queue is full."""

    code = "queue_full"


class RateLimited(Busy):
    """Too Many Requests: this key's limit is reached."""

    code = "rate_limit_exceeded"

    def __init__(self, limit: int, *, retry_after_s: float) -> None:
        self.limit = limit
        super().__init__(f"Too Many Requests: this key may make {limit} requests a minute", retry_after_s=retry_after_s)


class Draining(Busy):
    """Service unavailable: the server is stopping."""

    code = "draining"

    def __init__(self, *, retry_after_s: float, job_id: str | None = None) -> None:
        """job_id: the job that was accepted and goes on at the next start, if one was."""
        self.job_id = job_id
        # A repeated request would be another job.
        self.retryable = None if job_id is None else False
        super().__init__(retry_after_s=retry_after_s)


class IdempotencyInFlight(Busy):
    """A request with this Idempotency-Key is being processed. Retry for its answer."""

    code = "idempotency_key_in_flight"
    retryable = True


class StartDeadlineMissed(Error):
    """Generation timeout: the job did not start before its deadline."""

    code = "start_deadline_missed"
    retryable = False


class GenerationTimeout(Error):
    """Generation timeout"""

    code = "generation_timeout"
    retryable = False

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__()


class GenerationFailed(Error):
    """The image could not be generated."""

    code = "generation_failed"


class Cancelled(Error):
    """The job was cancelled."""

    code = "cancelled"
    retryable = False


class WeightsError(Error):
    """The model's files can't be used."""

    code = "weights_error"


class WeightsMissing(WeightsError):
    """A file of the model is missing."""

    code = "weights_missing"


class WeightsCorrupt(WeightsError):
    """A file of the model is damaged or is something else."""

    code = "weights_corrupt"


class WeightsUnsafe(WeightsError):
    """The model's files are in a format that runs code when it is opened."""

    code = "weights_unsafe"


class WeightsTooLarge(WeightsError):
    """The model needs more memory or disk than is free."""

    code = "weights_too_large"


class PullFailed(WeightsError):
    """The model's files could not be pulled."""

    code = "pull_failed"


class SettingsError(Error):
    """A setting can't be used."""

    code = "settings_error"


class StoreError(Error):
    """The data folder can't be used."""

    code = "store_error"


class StoreLocked(StoreError):
    """Another server works on this data folder."""

    code = "store_locked"


class StoreUnreachable(StoreError):
    """A server holds this data folder but does not answer."""

    code = "store_unreachable"
