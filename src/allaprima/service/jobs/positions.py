"""Positions of jobs in the queue, and their predicted start and finish times."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.clock import Clock
from allaprima.domain.events import EventType
from allaprima.domain.jobs import Job, JobState, QueuePosition
from allaprima.domain.ports import EventBus
from allaprima.errors import StoreError
from allaprima.service.jobs.eta import MIN_REMAINING, Eta
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.jobs import JobRepository

#: Seconds between two updates of the positions of watched jobs.
PUBLISH_INTERVAL_S = 0.5


class QueuePositions:
    """Computes positions, and publishes those of watched jobs when they change."""

    def __init__(self, jobs: JobRepository, eta: Eta, bus: EventBus, lifecycle: Lifecycle, clock: Clock) -> None:
        self._jobs = jobs
        self._eta = eta
        self._bus = bus
        self._lifecycle = lifecycle
        self._clock = clock

    async def of(self, job: Job) -> QueuePosition:
        """Return the position and the predicted times of a job."""
        if job.state == JobState.QUEUED and (position := await self._queued(job.id)):
            return position
        finish = None
        if job.state == JobState.RUNNING and job.started_at is not None:
            finish = round(self._clock() + self._finish_in(job, job.started_at), 3)
        return QueuePosition(None, job.started_at, finish)

    def _finish_in(self, job: Job, started_at: float) -> float:
        if (seconds := self._eta.finish_in(job.id)) is not None:
            return seconds
        # Another process runs the job, or its images are being stored.
        return max(MIN_REMAINING * job.predicted_s, started_at + job.predicted_s - self._clock())

    async def publish(self, job_id: str) -> None:
        """Publish a job's position, if it is queued and its position has changed."""
        if self._has_started(job_id):
            return
        position = await self._queued(job_id)
        # The job may have started while its position was read.
        if position is None or self._has_started(job_id):
            return
        last = self._bus.last(job_id)
        published = last.data if last else None
        if not isinstance(published, QueuePosition) or published.queue_position != position.queue_position:
            self._bus.publish(job_id, EventType.QUEUED, position)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish positions of watched jobs until the context exits."""
        task = asyncio.create_task(self._publish_all())
        try:
            yield
        finally:
            await task

    async def _publish_all(self) -> None:
        while not self._lifecycle.is_draining:
            for job_id in self._bus.watched:
                # The store has logged the error; the next round retries.
                with suppress(StoreError):
                    await self.publish(job_id)
            await self._lifecycle.pause(PUBLISH_INTERVAL_S)

    def _has_started(self, job_id: str) -> bool:
        last = self._bus.last(job_id)
        return last is not None and last.type != EventType.QUEUED

    async def _queued(self, job_id: str) -> QueuePosition | None:
        found = await self._jobs.ahead_of(job_id)
        if found is None:
            return None
        count, seconds, own_s = found
        start = self._clock() + self._eta.start_in(count, seconds)
        return QueuePosition(count + 1, round(start, 3), round(start + own_s, 3))
