"""What happens to jobs, for those who watch: numbered, kept for a while, and told again from any number on.

Events are kept in memory. An event's id is `<start of the server>.<number>`, so that ids of a later start are later,
and the end of a job has the same number wherever it is told from, so that nobody hears it twice.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from allaprima.domain.ports import Clock

#: The number of a job's last event.
END = 1_000_000
#: Finished jobs whose events are remembered, and the bytes of their previews, at most.
MANY_FINISHED, MANY_BYTES = 256, 64 * 2**20
#: Seconds after its last watcher left that a job still counts as watched: who lost a connection comes back.
LINGER_S = 30.0


class EventType(StrEnum):
    """The kinds of events; the last three are the final states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    STEP = "step"
    PREVIEW = "preview"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDS = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


@dataclass(frozen=True, slots=True, order=True)
class EventId:
    """Where an event stands among those of its job."""

    #: Unix seconds at which the server started.
    start: int
    number: int

    def __str__(self) -> str:
        return f"{self.start}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> "EventId | None":
        """Return the id that a client sent back, or None for a text that is none of ours."""
        start, dot, number = text.partition(".")
        is_id = dot and all(part.isascii() and part.isdigit() and len(part) < 16 for part in (start, number))
        return cls(int(start), int(number)) if is_id else None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job. The data of an end is empty: it is the job as it stands."""

    id: EventId
    type: EventType
    data: dict[str, Any]


@dataclass(slots=True, weakref_slot=True)
class _Log:
    events: list[Event] = field(default_factory=list)
    watchers: int = 0
    last_watched_at: float = float("-inf")
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def nbytes(self) -> int:
        previews = (event for event in self.events if event.type == EventType.PREVIEW)
        return sum(len(image["url"] or "") for event in previews for image in event.data["images"])

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1].type in ENDS


class Events:
    """The events of jobs that run, are watched, or ended a short while ago. To be used in the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = int(clock())
        self._logs: dict[str, _Log] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._over_bytes = 0
        self._is_closed = False

    def publish(self, job_id: str, kind: EventType, data: dict[str, Any]) -> None:
        """Tell those who watch, now or later."""
        log = self._logs.setdefault(job_id, _Log())
        if log.is_over:
            return
        number = END if kind in ENDS else len(log.events) + 1
        log.events.append(Event(EventId(self._start, number), kind, data))
        log.changed.set()
        log.changed = asyncio.Event()
        if kind in ENDS:
            self._over[job_id] = None
            self._over_bytes += log.nbytes
            while len(self._over) > MANY_FINISHED or (self._over_bytes > MANY_BYTES and len(self._over) > 1):
                oldest, _ = self._over.popitem(last=False)
                if forgotten := self._logs.pop(oldest, None):
                    self._over_bytes -= forgotten.nbytes

    def last(self, job_id: str, kind: EventType) -> dict[str, Any] | None:
        """Return the data of a job's last event if it is of that kind."""
        log = self._logs.get(job_id)
        return log.events[-1].data if log and log.events and log.events[-1].type == kind else None

    def is_watched(self, job_id: str) -> bool:
        """Whether anybody looks, or did a moment ago. May be asked from any thread."""
        log = self._logs.get(job_id)
        return log is not None and (log.watchers > 0 or self._clock() - log.last_watched_at < LINGER_S)

    def knows(self, job_id: str) -> bool:
        """Whether anything that happened to a job is remembered."""
        log = self._logs.get(job_id)
        return log is not None and bool(log.events)

    def is_waiting(self, job_id: str) -> bool:
        """Whether nothing but its place was told of a job so far."""
        log = self._logs.get(job_id)
        return log is None or not log.events or log.events[-1].type == EventType.QUEUED

    def close(self) -> None:
        """End all streams: the server stops, and whoever watches comes back with the last id that it saw."""
        self._is_closed = True
        for log in self._logs.values():
            log.changed.set()

    @property
    def watched(self) -> list[str]:
        """The ids of unfinished jobs that somebody looks at."""
        return [job_id for job_id, log in self._logs.items() if log.watchers and not log.is_over]

    def end_of(self, kind: EventType) -> Event:
        """Return the end of a job that was finished before anybody remembers."""
        return Event(EventId(self._start, END), kind, {})

    async def follow(self, job_id: str, after: EventId | None) -> AsyncIterator[Event]:
        """Give a job's events after one of them, or all that are remembered, as they happen, to its end."""
        log = self._logs.setdefault(job_id, _Log())
        log.watchers += 1
        place = 0
        try:
            while True:
                while place < len(log.events):
                    event = log.events[place]
                    place += 1
                    if after is None or event.id > after:
                        yield event
                if log.is_over or self._is_closed:
                    return
                await log.changed.wait()
        finally:
            log.watchers -= 1
            log.last_watched_at = self._clock()
            if not log.events and not log.watchers:
                self._logs.pop(job_id, None)
