"""The event bus of one process: stores the recent events of jobs in memory."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from allaprima.domain.clock import Clock
from allaprima.domain.events import LAST_NUMBER, Event, EventData, EventId, EventType, Started
from allaprima.domain.ports import EventBus
from allaprima.domain.progress import Preview, StepDone

#: Limits of the stored events of finished jobs: number of jobs, and bytes of their previews.
MAX_FINISHED, MAX_PREVIEW_BYTES = 256, 64 * 2**20
#: Seconds for which a job counts as watched after its last watcher disconnected, because watchers reconnect.
WATCH_GRACE_S = 30.0


@dataclass(slots=True)
class _Log:
    events: list[Event] = field(default_factory=list)
    #: The attempt that runs or ran last; 0: none in this process.
    attempt: int = 0
    followers: int = 0
    watchers: int = 0
    last_watched_at: float = float("-inf")
    #: Whether the job was removed, so that no event follows.
    is_removed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def preview_bytes(self) -> int:
        previews = (event.data for event in self.events if isinstance(event.data, Preview))
        return sum(len(image.data) for preview in previews for image in preview.images)

    @property
    def is_finished(self) -> bool:
        return bool(self.events) and self.events[-1].type.is_final

    def append(self, kind: EventType, data: EventData, now: float) -> None:
        """Append an event. now: unix seconds."""
        if isinstance(data, Started):
            self.attempt = data.attempt
        event_id = EventId(self.attempt, _number(kind, data))
        if kind == EventType.QUEUED:
            # Positions increase even if the clock is set back.
            last = self.events[-1].id if self.events else EventId(0, 0)
            event_id = max(EventId(0, int(now * 1000)), EventId(last.attempt, last.number + 1))
        self.events.append(Event(event_id, kind, data))
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        # A new event, because waits on the one that is set return immediately.
        self.changed = asyncio.Event()


class MemoryEventBus(EventBus):
    """The events of running, followed and recently finished jobs. For use in the event loop only."""

    def __init__(self, clock: Clock, monotonic: Clock) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._logs: dict[str, _Log] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._finished_bytes = 0
        self._is_closed = self._has_closed_watches = False

    def publish(self, job_id: str, kind: EventType, data: EventData = None, attempt: int = 0) -> None:
        """See `EventBus`."""
        log = self._logs.setdefault(job_id, _Log())
        if log.is_finished:
            return
        log.attempt = max(log.attempt, attempt)
        log.append(kind, data, self._clock())
        if kind.is_final:
            self._finished[job_id] = None
            self._finished_bytes += log.preview_bytes
            self._evict()

    def _evict(self) -> None:
        while len(self._finished) > MAX_FINISHED or (
            self._finished_bytes > MAX_PREVIEW_BYTES and len(self._finished) > 1
        ):
            oldest, _ = self._finished.popitem(last=False)
            if evicted := self._logs.pop(oldest, None):
                self._finished_bytes -= evicted.preview_bytes

    @asynccontextmanager
    async def follow(
        self, job_id: str, after: EventId | None = None, *, previews: bool = False
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """See `EventBus`."""
        log = self._logs.setdefault(job_id, _Log())
        log.followers += 1
        log.watchers += previews
        try:
            async with aclosing(self._events(log, after, previews)) as events:
                yield events
        finally:
            log.followers -= 1
            if previews:
                log.watchers -= 1
                log.last_watched_at = self._monotonic()
            if not log.events and not log.followers and self._logs.get(job_id) is log:
                del self._logs[job_id]

    async def _events(self, log: _Log, after: EventId | None, previews: bool) -> AsyncGenerator[Event, None]:
        # The final event is always sent: the attempt of `after` may be unknown to this process.
        after = None if after is None or after.is_of_old_version else after
        index = 0
        while True:
            while index < len(log.events):
                event = log.events[index]
                index += 1
                if after is None or event.id > after or (event.type.is_final and not after.is_last):
                    yield event
            if log.is_finished or log.is_removed or self._is_closed or (previews and self._has_closed_watches):
                return
            await log.changed.wait()

    def is_watched(self, job_id: str) -> bool:
        """See `EventBus`."""
        log = self._logs.get(job_id)
        return log is not None and (log.watchers > 0 or self._monotonic() - log.last_watched_at < WATCH_GRACE_S)

    def last(self, job_id: str) -> Event | None:
        """See `EventBus`."""
        log = self._logs.get(job_id)
        return log.events[-1] if log and log.events else None

    @property
    def watched(self) -> list[str]:
        """See `EventBus`."""
        return [job_id for job_id, log in self._logs.items() if log.watchers and not log.is_finished]

    def final_event(self, kind: EventType, attempt: int) -> Event:
        """See `EventBus`."""
        return Event(EventId(attempt, LAST_NUMBER), kind)

    def close_watches(self) -> None:
        """See `EventBus`."""
        self._has_closed_watches = True
        self._wake_all()

    def close(self) -> None:
        """See `EventBus`."""
        self._is_closed = True
        self._wake_all()

    def _wake_all(self) -> None:
        for log in self._logs.values():
            log.wake()


def _number(kind: EventType, data: EventData) -> int:
    """Return the number of an event of an attempt; see `EventId`."""
    if isinstance(data, StepDone):
        return 2 * data.step
    if isinstance(data, Preview):
        return 2 * data.step + 1
    return LAST_NUMBER if kind.is_final else 1
