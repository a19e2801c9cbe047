"""What the use cases need from the outside, as protocols. A cluster replaces what stands behind them."""

from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from allaprima.domain.events import Event, EventData, EventId, EventType
from allaprima.domain.generation import GenerationRequest, GenerationResult
from allaprima.domain.models import ModelInfo, TokenCount
from allaprima.domain.progress import Progress
from allaprima.domain.webhooks import JobEnd, WebhookDelivery, WebhookMessage


class Clock(Protocol):
    """Reads the time."""

    def __call__(self) -> float:
        """Return the unix time in seconds."""


class Roster(Protocol):
    """What admission asks of the models: which there are, and how long a prompt is. Needs no tensor library."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return the length of a request's prompt for its model."""


class Engine(Roster, Protocol):
    """Generates requests, one Future each."""

    @property
    def max_concurrency(self) -> int:
        """Most requests that are generated at a time."""

    @property
    def ready(self) -> Future[None]:
        """Done when every model is loaded; fails with the `WeightsError` when one can't be."""

    def start(self) -> None:
        """Start to load the models, and then to generate."""

    def enqueue(self, job_id: str, request: GenerationRequest, progress: Progress) -> Future[GenerationResult]:
        """Queue a request; the Future fails with `Cancelled`, `Draining` or `GenerationFailed`, or is cancelled."""

    def cancel(self, job_id: str) -> None:
        """Stop a request as soon as possible. An unknown id is ignored."""

    def close(self) -> None:
        """Stop; a request that is not finished fails with `Draining`. Returns when the threads have ended."""


class ObjectStore(Protocol):
    """Files by name."""

    async def put(self, name: str, data: bytes) -> None:
        """Write a file durably. Raises `StoreError`."""

    async def get(self, name: str) -> bytes | None:
        """Return a file, or None where there is none. Raises `StoreError`."""

    async def delete(self, name: str) -> None:
        """Remove a file, if it is there. Raises `StoreError`."""

    def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        """Yield pages of names with the time of their last change. Raises `StoreError`."""


class EventBus(Protocol):
    """Events of jobs, from the process that runs a job to everything that follows it."""

    def publish(self, job_id: str, kind: EventType, data: EventData = None) -> None:
        """Append an event to a job's log. After an end nothing is appended."""

    def follow(
        self, job_id: str, after: EventId | None = None, *, previews: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Subscribe to a job's events after one of them, or to all that are remembered, up to its end.

        previews: whether the subscriber is a watcher, for whom previews are made. The iterator ends early when the bus
        is closed.
        """

    def is_watched(self, job_id: str) -> bool:
        """Whether previews would be seen. May be called from any thread."""

    def last(self, job_id: str) -> Event | None:
        """Return the last event of a job that is remembered."""

    @property
    def watched(self) -> list[str]:
        """The ids of unfinished jobs that have a watcher."""

    def final_event(self, kind: EventType) -> Event:
        """Return the end of a job whose events are forgotten."""

    def close_watches(self) -> None:
        """End the iterators of all watchers: the server is about to stop, and they resume with their last id."""

    def close(self) -> None:
        """End all iterators."""


class QueueSignal(Protocol):
    """Tells the dispatcher that a job was queued."""

    def notify(self) -> None:
        """Wake the dispatcher."""

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return when `notify` was called since the last wait, or after some seconds."""


class EphemeralResults(Protocol):
    """Results of jobs with `store=false`, between the engine and the one answer that delivers them."""

    def put(self, job_id: str, result: GenerationResult) -> None:
        """Hold a result for the client that waits for it."""

    def take(self, job_id: str) -> GenerationResult | None:
        """Return a result, once."""


@dataclass(frozen=True, slots=True)
class RateStatus:
    """Where a key stands in its rate limit."""

    #: Requests a minute.
    limit: int
    #: Requests that may be made at once.
    remaining: int
    #: Seconds until all of the limit is available.
    reset_s: float


class RateLimiter(Protocol):
    """Limits the requests of a key in a minute."""

    def take(self, key_id: str, per_minute: int | None = None) -> RateStatus | None:
        """Count one request; return where the key stands after it, or None where nothing is counted.

        per_minute: the key's own limit; the stricter of it and the server's counts. Raises `RateLimited` with the
        seconds after which it would pass; a refused request is not counted.
        """


class WebhookFormat(Protocol):
    """How a dialect writes and signs webhooks."""

    def webhook(self, delivery: WebhookDelivery, end: JobEnd, now: float) -> WebhookMessage:
        """Return the message that reports a job's end. now: unix seconds of the signature."""
