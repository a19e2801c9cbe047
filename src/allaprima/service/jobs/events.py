"""The event bus of one process: numbers the events of jobs and stores the recent ones in memory.

The id of an event is `<start of the server>.<number>`, so that ids increase across restarts. The final event of a job
always has the same number, so that no client receives it twice.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from allaprima.domain.clock import Clock
from allaprima.domain.events import LAST_NUMBER, Event, EventData, EventId, EventType
from allaprima.domain.ports import EventBus
from allaprima.domain.progress import Preview

#: Limits of the stored events of finished jobs: number of jobs, and bytes of their previews.
MAX_FINISHED, MAX_PREVIEW_BYTES = 256, 64 * 2**20
#: Seconds for which a job counts as watched after its last watcher disconnected, because watchers reconnect.
WATCH_GRACE_S = 30.0


@dataclass(slots=True)
class _Log:
    events: list[Event] = field(default_factory=list)
    followers: int = 0
    watchers: int = 0
    last_watched_at: float = float("-inf")
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def preview_bytes(self) -> int:
        previews = (event.data for event in self.events if isinstance(event.data, Preview))
        return sum(len(image.data) for preview in previews for image in preview.images)

    @property
    def is_finished(self) -> bool:
        return bool(self.events) and self.events[-1].type.is_final

    def wake(self) -> None:
        self.changed.set()
        # A new event, because waits on the one that is set return immediately.
        self.changed = asyncio.Event()


class MemoryEventBus(EventBus):
    """The events of running, followed and recently finished jobs. For use in the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = int(clock())
        self._logs: dict[str, _Log] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._finished_bytes = 0
        self._is_closed = self._has_closed_watches = False

    def publish(self, job_id: str, kind: EventType, data: EventData = None) -> None:
        """See `EventBus`."""
        log = self._logs.setdefault(job_id, _Log())
        if log.is_finished:
            return
        number = LAST_NUMBER if kind.is_final else len(log.events) + 1
        log.events.append(Event(EventId(self._start, number), kind, data))
        log.wake()
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
                log.last_watched_at = self._clock()
            if not log.events and not log.followers and self._logs.get(job_id) is log:
                del self._logs[job_id]

    async def _events(self, log: _Log, after: EventId | None, previews: bool) -> AsyncGenerator[Event, None]:
        # The final event is sent even if `after` is later, because the clock may have been set back between two starts.
        index = 0
        while True:
            while index < len(log.events):
                event = log.events[index]
                index += 1
                if after is None or event.id > after or (event.type.is_final and not after.is_last):
                    yield event
            if log.is_finished or self._is_closed or (previews and self._has_closed_watches):
                return
            await log.changed.wait()

    def is_watched(self, job_id: str) -> bool:
        """See `EventBus`."""
        log = self._logs.get(job_id)
        return log is not None and (log.watchers > 0 or self._clock() - log.last_watched_at < WATCH_GRACE_S)

    def last(self, job_id: str) -> Event | None:
        """See `EventBus`."""
        log = self._logs.get(job_id)
        return log.events[-1] if log and log.events else None

    @property
    def watched(self) -> list[str]:
        """See `EventBus`."""
        return [job_id for job_id, log in self._logs.items() if log.watchers and not log.is_finished]

    def final_event(self, kind: EventType) -> Event:
        """See `EventBus`."""
        return Event(EventId(self._start, LAST_NUMBER), kind)

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
