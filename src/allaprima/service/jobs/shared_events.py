"""The event bus of a process that shares its database with others, which run some of the jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.clock import Clock
from allaprima.domain.events import Event, EventData, EventId, EventType, Started
from allaprima.domain.hints import Hint, HintKind
from allaprima.domain.jobs import JobProgress, JobState
from allaprima.domain.ports import Hints
from allaprima.service.jobs.events import MemoryEventBus


class Checklist:
    """The ids of jobs to read from the database. For use in the event loop only."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, *job_ids: str) -> None:
        """Add jobs."""
        self._ids.update(job_ids)
        self._changed.set()

    async def take(self, until: float) -> set[str]:
        """Wait until there is a job, or until a time of the event loop; return the jobs and forget them."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        self._changed.clear()
        ids, self._ids = self._ids, set()
        return ids


class SharedEventBus(MemoryEventBus):
    """The events of this process's followers. Of a job that another process runs, they are places, start and end."""

    def __init__(self, clock: Clock, monotonic: Clock, hints: Hints) -> None:
        super().__init__(clock, monotonic)
        self._hints = hints
        #: Jobs to read soon: watchers have come whose jobs may already run in another process.
        self.checklist = Checklist()

    def publish(self, job_id: str, kind: EventType, data: EventData = None, attempt: int = 0) -> None:
        """See `EventBus`. The other processes receive a hint of a start and of an end."""
        if not (isinstance(data, Started) and self._has_started(job_id, data.attempt)):
            super().publish(job_id, kind, data, attempt)
        if kind == EventType.RUNNING:
            self._hints.send(Hint(HintKind.RUNNING, job_id))
        elif kind.is_final:
            self._hints.send(Hint(HintKind.ENDED, job_id))

    @asynccontextmanager
    async def follow(
        self, job_id: str, after: EventId | None = None, *, previews: bool = False
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """See `EventBus`."""
        async with super().follow(job_id, after, previews=previews) as events:
            if previews and not self._has_started(job_id, 1):
                self.checklist.add(job_id)
            yield events

    @property
    def unfinished(self) -> set[str]:
        """The ids of jobs with events or followers whose end is not known."""
        return {job_id for job_id, log in self._logs.items() if not log.is_finished}

    def observe(self, progress: JobProgress) -> None:
        """Publish what the database says of a job that this process does not run."""
        job_id, state, attempt = progress.id, progress.state, progress.attempt
        if job_id not in self._logs or state == JobState.QUEUED:
            return
        if state != JobState.RUNNING:
            super().publish(job_id, EventType.of_end(state), attempt=attempt)
        elif not self._has_started(job_id, attempt):
            super().publish(job_id, EventType.RUNNING, Started(attempt))

    def remove(self, job_id: str) -> None:
        """End the streams of a job that was removed."""
        if log := self._logs.pop(job_id, None):
            log.is_removed = True
            log.wake()

    def _has_started(self, job_id: str, attempt: int) -> bool:
        log = self._logs.get(job_id)
        return log is not None and log.attempt >= attempt
