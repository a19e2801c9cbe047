"""The interfaces of the use cases to their environment, as protocols. A cluster uses other implementations of them."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from allaprima.domain.events import Event, EventData, EventId, EventType
from allaprima.domain.generation import GenerationRequest, GenerationResult
from allaprima.domain.hints import Hint, Reconnected
from allaprima.domain.jobs import Job
from allaprima.domain.models import ModelInfo, TokenCount
from allaprima.domain.progress import Progress
from allaprima.domain.webhooks import JobEnd, WebhookDelivery, WebhookMessage


class Roster(Protocol):
    """The loaded models and their tokenizers. Implementations need no tensor library."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return the length of a request's prompt for its model."""

    def prompt_warnings(self, request: GenerationRequest) -> tuple[str, ...]:
        """Return what the result's warnings will say of a request's prompt."""


class Engine(Roster, Protocol):
    """Runs generation requests and returns a Future for each."""

    @property
    def max_concurrency(self) -> int:
        """Largest number of requests that run concurrently."""

    @property
    def ready(self) -> Future[None]:
        """A Future that completes when every model is loaded, and fails with `WeightsError` if one can't be loaded."""

    def start(self) -> None:
        """Start loading the models and then running requests."""

    def enqueue(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request. Its Future fails with `Cancelled`, `Draining` or `GenerationFailed`, or is cancelled."""

    def cancel(self, job_id: str) -> None:
        """Stop a request as soon as possible. An unknown id is ignored."""

    def close(self) -> None:
        """Stop the engine and wait for its threads. Unfinished requests fail with `Draining`."""


class ObjectStore(Protocol):
    """A store of files by name."""

    #: Age from which a file without a row is an orphan. A younger one may be of a job that has not committed its rows.
    orphan_age: timedelta = timedelta(hours=1)
    #: Seconds between two searches for orphans; 0: at every sweep.
    orphans_every_s: float = 0.0

    async def put(self, name: str, data: bytes) -> None:
        """Write a file durably. Raises `StoreError`."""

    async def get(self, name: str) -> bytes | None:
        """Return a file, or None if it does not exist. Raises `StoreError`."""

    async def delete(self, name: str) -> None:
        """Delete a file if it exists. Raises `StoreError`."""

    def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        """Yield pages of file names with their modification times. Raises `StoreError`."""

    async def is_available(self) -> bool:
        """Whether the store answers now, so that a file can be written. A folder always does."""
        return True

    def owns(self, name: str) -> bool:  # noqa: ARG002 - stores with other files need it
        """Whether a listed file may be removed as an orphan. The folder of images contains nothing else."""
        return True

    async def signed_url(self, name: str, seconds: float) -> str | None:  # noqa: ARG002 - as above
        """Return a URL of the store itself that returns a file for some seconds; None if the store has no URLs."""
        return None


class EventBus(Protocol):
    """Distributes events of jobs from the process that runs a job to its followers."""

    def publish(self, job_id: str, kind: EventType, data: EventData = None, attempt: int = 0) -> None:
        """Append an event to the log of a job. Events after a final event are ignored.

        attempt: the job's latest attempt, if its start may have been published in another process.
        """

    def follow(
        self, job_id: str, after: EventId | None = None, *, previews: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Subscribe to the events of a job until its end. after: only events after this one; None: all stored events.

        previews: whether the subscriber is a watcher, which requests previews. The iterator ends early when the bus
        is closed.
        """

    def is_watched(self, job_id: str) -> bool:
        """Whether a job has a watcher for its previews. May be called from any thread."""

    def last(self, job_id: str) -> Event | None:
        """Return the last stored event of a job, or None."""

    @property
    def watched(self) -> list[str]:
        """The ids of unfinished jobs with a watcher."""

    def final_event(self, kind: EventType, attempt: int) -> Event:
        """Return the final event of a job whose events are no longer stored."""

    def close_watches(self) -> None:
        """End the iterators of all watchers before the server stops. Watchers can resume after their last event."""

    def close(self) -> None:
        """End all iterators."""


class QueueSignal(Protocol):
    """Signals to the dispatcher that a job was queued."""

    def notify(self) -> None:
        """Wake the dispatcher."""

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return when `notify` has been called since the last wait, or after the timeout; None: no timeout."""


class Hints(Protocol):
    """Passes hints between the processes that share one database. Each hint may be lost."""

    def send(self, hint: Hint) -> None:
        """Send a hint, after the commit of what it reports. For use in the event loop; returns before it is sent."""

    def follow(self) -> AbstractAsyncContextManager[AsyncIterator[Hint | Reconnected]]:
        """Subscribe to the hints of the other processes."""


@dataclass(frozen=True, slots=True)
class EphemeralResult:
    """A generated result of a job with `store=false`, and the job as it will be once the result is delivered."""

    job: Job
    result: GenerationResult


class Delivery(Protocol):
    """The delivery of one result of a job with `store=false` to the client that waits for it."""

    @property
    def result(self) -> asyncio.Future[EphemeralResult]:
        """The result, once it is generated."""

    def progress(self) -> bool:
        """Report that the client has received a part; return whether the delivery has not failed."""

    async def confirm(self) -> None:
        """Report that the client has received the result; return when the job has ended."""

    def abandon(self) -> None:
        """Report that the client will not receive the result. Does nothing after `confirm`."""


class EphemeralResults(Protocol):
    """Passes the results of jobs with `store=false` to the responses that deliver them; nothing is written."""

    def delivery(self, job_id: str) -> Delivery:
        """Return the delivery of a job's result, for its response. The response confirms or abandons it."""

    def offer(self, job: Job, result: GenerationResult) -> AbstractAsyncContextManager[bool]:
        """Offer a result to its response; the context's value is whether the client has received it.

        The caller stores the end of the job within the context. job: as it will be once the result is delivered.
        """

    def abandon(self, job_id: str) -> None:
        """Let the delivery of a job's result fail, if there is one and its client has not received it."""


@dataclass(frozen=True, slots=True)
class RateStatus:
    """The state of a key's rate limit."""

    #: Requests per minute.
    limit: int
    #: Number of requests that the key may make immediately.
    remaining: int
    #: Seconds until the whole limit is available.
    reset_s: float


class RateLimiter(Protocol):
    """Limits the requests of each key per minute."""

    def take(self, key_id: str, per_minute: int | None = None) -> RateStatus | None:
        """Count one request; return the state of the limit after it, or None if there is no limit.

        per_minute: the key's own limit, which applies if it is stricter than the server's. Raises `RateLimited` with
        the seconds until a retry passes; a refused request is not counted.
        """


class WebhookFormat(Protocol):
    """Writes and signs webhooks in one dialect."""

    def webhook(self, delivery: WebhookDelivery, end: JobEnd, now: float) -> WebhookMessage:
        """Return the message that reports the end of a job. now: time of the signature in unix seconds."""
