"""The interface of a wire format (dialect): it reads request bodies and writes response bodies and webhooks."""

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
    """A parsed request body."""

    request: GenerationRequest
    options: JobOptions
    dry_run: bool
    #: Ignored members, as the client named them.
    ignored: tuple[str, ...]
    #: The client's name of each field of `GenerationRequest` and `JobOptions`.
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with the data that a response shows."""

    job: Job
    images: JobImages
    #: Returns the absolute URL of a stored image.
    link: Callable[[StoredImage], str]
    #: Returns the absolute URL of a stored image's thumbnail; None if it has none.
    thumbnail: Callable[[StoredImage], str | None]
    #: None in lists.
    position: QueuePosition | None = None
    #: The prompt that the client sent, because a job with `store=false` does not store it; None: the job's own prompt.
    prompt: str | None = None
    #: Whether the job is part of a list, in which images are links in any case.
    is_listed: bool = False


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """The data of an error response."""

    status: int
    code: str
    message: str
    #: Id of the HTTP exchange.
    request_id: str
    path: str
    problems: tuple[FieldProblem, ...] = ()
    job_id: str | None = None
    #: Time of the response in unix seconds.
    at: float = field(default=0.0)


class Dialect(WebhookFormat, Protocol):
    """One wire format. It defines bodies only; statuses and headers are the same in all dialects."""

    name: str

    def parse(self, body: dict[str, Any], models: Models) -> ParsedBody:
        """Return the parsed body. Raises `InvalidRequest`, which lists every problem under the client's names."""

    def result(self, view: JobView) -> dict[str, Any]:
        """Return the response body with the images of a succeeded job."""

    def job(self, view: JobView) -> dict[str, Any]:
        """Return the response body of a job in any state."""

    def image(self, image: StoredImage, view: JobView) -> dict[str, Any]:
        """Return the response body of a stored image. view: its job."""

    def estimate(self, estimate: Estimate) -> dict[str, Any]:
        """Return the response body of a dry run."""

    def event(self, event: Event) -> dict[str, Any]:
        """Return the data of an event that does not end the job."""

    def error(self, report: ErrorReport) -> dict[str, Any]:
        """Return the response body of an error."""
