"""What a wire format must do: read a request body, and write results, jobs, events, errors and webhooks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from allaprima.domain.events import Event
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Estimate, Job, JobOptions, QueuePosition, StoredImage
from allaprima.domain.ports import WebhookFormat
from allaprima.errors import FieldProblem
from allaprima.service.images import JobImages
from allaprima.service.models import Models


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """What a request body asks."""

    request: GenerationRequest
    options: JobOptions
    dry_run: bool
    #: Members without effect, as the client named them.
    ignored: tuple[str, ...]
    #: The client's names of fields of `GenerationRequest` and `JobOptions`.
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with everything that an answer shows of it."""

    job: Job
    images: JobImages
    #: Absolute URL of a stored image.
    link: Callable[[StoredImage], str]
    #: None in lists.
    position: QueuePosition | None = None
    #: As the client sent it; a job with `store=false` does not keep it.
    prompt: str | None = None
    #: Whether images are given as links, whatever the request asked.
    is_listed: bool = False


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as an answer shows it."""

    status: int
    code: str
    message: str
    #: The exchange's id.
    request_id: str
    path: str
    problems: tuple[FieldProblem, ...] = ()
    job_id: str | None = None
    #: Unix seconds.
    at: float = field(default=0.0)


class Dialect(WebhookFormat, Protocol):
    """One wire format. It knows no HTTP beyond bodies: statuses and headers are the same in all dialects."""

    name: str

    def parse(self, body: dict[str, Any], models: Models) -> ParsedBody:
        """Return what a body asks. Raises `InvalidRequest` with every problem in it, under the client's names."""

    def result(self, view: JobView) -> dict[str, Any]:
        """Return the body that delivers a succeeded job."""

    def job(self, view: JobView) -> dict[str, Any]:
        """Return a job in any state."""

    def estimate(self, estimate: Estimate) -> dict[str, Any]:
        """Return the answer to a dry run."""

    def event(self, event: Event) -> dict[str, Any]:
        """Return the data of an event that is not an end."""

    def error(self, report: ErrorReport) -> dict[str, Any]:
        """Return the body of an error."""
