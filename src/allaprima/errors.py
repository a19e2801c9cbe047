"""The tree of all errors that allaprima raises on purpose. It is independent of HTTP; `api.errors` maps it to statuses.

Error:
    ├── InvalidRequest          lists every invalid field of a request
    ├── IdempotencyMismatch     the Idempotency-Key was used for another request
    ├── Unauthorized            the API key is missing or invalid
    │   └── SignInTokenInvalid  used, expired or unknown
    ├── Forbidden               the key is valid but lacks permission
    │   ├── ScopeMissing
    │   ├── ManagementOnly      an ordinary key where a management key is needed
    │   ├── OrdinaryOnly        a management key where an ordinary key is needed
    │   ├── OutOfCredits
    │   ├── KeyLimitReached
    │   └── ForeignRequest      a server without authentication serves its own machine and pages only
    ├── NotFound
    │   ├── JobNotFound
    │   ├── ImageNotFound
    │   ├── KeyNotFound
    │   ├── AccountNotFound
    │   ├── ModelNotFound
    │   └── EndpointNotFound
    ├── Conflict                the resource's current state forbids it
    │   ├── JobFinished
    │   └── JobUnfinished
    ├── Busy                    carries the seconds until a retry
    │   ├── QueueFull
    │   ├── RateLimited
    │   ├── Draining
    │   └── IdempotencyInFlight  a request with the same key is in progress
    ├── StorageLimitReached     a limit of the operator on stored bytes
    │   ├── StarLimitReached    of an account's starred images
    │   └── ImageLimitReached   of all images of the server
    ├── GenerationTimeout       the wait timed out, the job continues; carries its id
    ├── StartDeadlineMissed     the job did not start before its deadline
    ├── GenerationFailed        the job ended without an image
    ├── Cancelled               the job was cancelled
    ├── WeightsError
    │   ├── WeightsMissing
    │   ├── WeightsCorrupt
    │   ├── WeightsUnsafe       a format that runs code when it is loaded
    │   ├── WeightsTooLarge     larger than the free memory or disk
    │   └── PullFailed          the download from the hub failed
    ├── SettingsError           a setting that can't be used
    └── StoreError
        ├── StoreFull           the disk is full; carries the seconds until a retry
        ├── DatabaseUnavailable the database server does not answer; carries the seconds until a retry
        ├── ImageStoreUnavailable  the bucket does not answer; carries the seconds until a retry
        ├── ImageDamaged        a stored image differs from the one that was generated
        ├── StoreLocked         another server uses the same data folder
        └── StoreUnreachable    a server uses the data folder but does not answer

The docstring of a class is its default message; `code` is its stable name for programs.

"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """An invalid field of a request."""

    #: The field as the client named it, such as `image_size.width`.
    field: str
    #: What is wrong and what is allowed: a clause without a full stop.
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Error(Exception):
    """The operation failed."""

    code: ClassVar[str] = "error"
    #: Whether the error refuses a request for lack of capacity or credits; the metrics count these errors.
    is_refusal: ClassVar[bool] = False
    #: Whether a client should send the same request again; None: the client follows its default for the status.
    retryable: bool | None = None
    #: Seconds after which a client should send the request again; None: unknown.
    retry_after_s: float | None = None
    #: The invalid fields.
    problems: tuple[FieldProblem, ...] = ()
    #: Id of the job that continues in spite of the error, if there is one.
    job_id: str | None = None

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)


class InvalidRequest(Error):
    """The request is invalid."""

    code = "invalid_request"

    def __init__(self, *problems: FieldProblem) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)) or None)


class Unauthorized(Error):
    """This request requires a valid API key. You can create one with `allaprima keys create`."""

    code = "invalid_api_key"


class SignInTokenInvalid(Unauthorized):
    """This sign-in link was used before, or it has expired. The command `allaprima open` creates a new one."""

    code = "invalid_sign_in_token"


class IdempotencyMismatch(Error):
    """This Idempotency-Key was used for another request. Use a new key for a new request."""

    code = "idempotency_key_reused"


class Forbidden(Error):
    """This API key has no permission for this operation."""

    code = "forbidden"


class ScopeMissing(Forbidden):
    """This API key lacks a scope."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This operation requires an ordinary API key with the scope {scope}")


class ManagementOnly(Forbidden):
    """This operation requires a management key. The operator creates one with `allaprima keys create --management`."""

    code = "management_key_required"


class OrdinaryOnly(Forbidden):
    """This operation requires an ordinary API key, not a management key."""

    code = "ordinary_key_required"


class OutOfCredits(Forbidden):
    """You've run out of credits. Please ask the operator of this server to top up your balance to continue."""

    code = "out_of_credits"
    is_refusal = True


class KeyLimitReached(Forbidden):
    """This API key has reached its spend limit. Wait for the next limit period, or raise the limit."""

    code = "key_limit_reached"
    is_refusal = True


class ForeignRequest(Forbidden):
    """This server runs with --no-auth, so it answers only programs on its own machine and its own pages."""

    code = "foreign_request"


class NotFound(Error):
    """The resource does not exist."""

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
    """This server has no such model."""

    code = "model_not_found"


class EndpointNotFound(NotFound):
    """There is no such webhook endpoint."""

    code = "endpoint_not_found"


class Conflict(Error):
    """The current state of the resource does not allow this operation."""

    code = "conflict"
    retryable = False


class JobFinished(Conflict):
    """The job has ended."""

    code = "job_finished"

    def __init__(self, state: str) -> None:
        super().__init__(f"The job has ended; its status is {state}")


class JobUnfinished(Conflict):
    """The job has not ended."""

    code = "job_unfinished"

    def __init__(self, state: str) -> None:
        super().__init__(f"The job is {state}; cancel it first, or wait until it ends")


class Busy(Error):
    """The server can't accept this request now. Try again later."""

    code = "busy"
    is_refusal = True

    def __init__(self, message: str | None = None, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class QueueFull(Busy):
    """Too Many Requests: the queue is full."""

    code = "queue_full"


class RateLimited(Busy):
    """Too Many Requests: this API key has reached its rate limit."""

    code = "rate_limit_exceeded"

    def __init__(self, limit: int, *, retry_after_s: float) -> None:
        self.limit = limit
        super().__init__(f"Too Many Requests: the limit is {limit} requests per minute", retry_after_s=retry_after_s)


class Draining(Busy):
    """Service unavailable: the server is stopping."""

    code = "draining"

    def __init__(self, *, retry_after_s: float, job_id: str | None = None) -> None:
        """job_id: the accepted job, which continues after the next start; None if no job was accepted."""
        self.job_id = job_id
        # A repeated request would create a second job.
        self.retryable = None if job_id is None else False
        super().__init__(retry_after_s=retry_after_s)


class IdempotencyInFlight(Busy):
    """A request with this Idempotency-Key is in progress. Retry to receive its response."""

    code = "idempotency_key_in_flight"
    retryable = True


class StorageLimitReached(Error):
    """The images fill the space that the operator of this server allows."""

    code = "storage_limit_reached"


class StarLimitReached(StorageLimitReached):
    """The account's starred images fill the space that the operator allows. Unstar or delete some."""

    code = "star_limit_reached"
    retryable = False

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The starred images of an account may have {max_bytes} bytes together, and this image would exceed that; "
            "unstar or delete others, or ask the operator of this server to raise ALLAPRIMA_STORE__MAX_STARRED_BYTES"
        )


class ImageLimitReached(StorageLimitReached):
    """The server's images fill the space that the operator allows. Delete some, or try again when some have expired."""

    code = "image_limit_reached"
    is_refusal = True
    #: Images expire, or clients delete some.
    retry_after_s = 60.0


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
    """A file of the model is damaged or has an unexpected format."""

    code = "weights_corrupt"


class WeightsUnsafe(WeightsError):
    """The model's files have a format that runs code when it is loaded."""

    code = "weights_unsafe"


class WeightsTooLarge(WeightsError):
    """The model needs more memory or disk space than is free."""

    code = "weights_too_large"


class PullFailed(WeightsError):
    """The model's files could not be downloaded."""

    code = "pull_failed"


class SettingsError(Error):
    """A setting is invalid."""

    code = "settings_error"


class StoreError(Error):
    """The data folder can't be used."""

    code = "store_error"


class StoreFull(StoreError):
    """The server's disk is full. Try again later."""

    code = "store_full"
    #: The disk has room when images expire or the operator frees some.
    retry_after_s = 60.0


class DatabaseUnavailable(StoreError):
    """The database can't be reached. Try again later."""

    code = "database_unavailable"
    #: A server of databases restarts in some seconds.
    retry_after_s = 5.0


class ImageStoreUnavailable(StoreError):
    """The image store can't be reached. Try again later."""

    code = "image_store_unavailable"
    retry_after_s = 5.0


class ImageDamaged(StoreError):
    """The stored file of this image was changed or is damaged."""

    code = "image_damaged"


class StoreLocked(StoreError):
    """Another server uses this data folder."""

    code = "store_locked"


class StoreUnreachable(StoreError):
    """A server uses this data folder but does not answer."""

    code = "store_unreachable"
