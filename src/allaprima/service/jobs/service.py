"""Reads, awaits, watches and removes accepted jobs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from allaprima.domain.events import Event, EventId, EventType
from allaprima.domain.jobs import Job, JobFilter
from allaprima.domain.ports import EventBus
from allaprima.errors import Draining, GenerationTimeout, JobNotFound, StoreError
from allaprima.service.jobs.positions import QueuePositions
from allaprima.service.lifecycle import RESTART_S, Lifecycle
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository


class JobService:
    """The use cases of clients on accepted jobs."""

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        images: ImageRepository,
        bus: EventBus,
        positions: QueuePositions,
        lifecycle: Lifecycle,
    ) -> None:
        self._jobs = jobs
        self._transitions = transitions
        self._images = images
        self._bus = bus
        self._lifecycle = lifecycle
        self.positions = positions

    async def get(self, account_id: str, job_id: str) -> Job:
        """Return an account's job. Raises `JobNotFound`."""
        job = await self._jobs.get(job_id)
        if job is None or job.account_id != account_id:
            raise JobNotFound
        return job

    async def page(self, account_id: str, wanted: JobFilter, limit: int) -> list[Job]:
        """Return an account's jobs, newest first."""
        return await self._jobs.page(account_id, wanted, limit)

    async def wait(self, job: Job, timeout_s: float) -> Job:
        """Wait until a job ends, and return it. timeout_s: longest wait in seconds.

        Raises `GenerationTimeout` if the job does not end in time (it continues), `Draining` if the server stops first
        (the job waits for the next start), or `JobNotFound` if the job was removed.
        """
        try:
            async with self._bus.follow(job.id) as events:
                # The job may have ended before this subscription.
                job = await self.get(job.account_id, job.id)
                if not job.is_finished and not self._lifecycle.is_draining:
                    async with asyncio.timeout(timeout_s):
                        await _end_of(events)
                    job = await self.get(job.account_id, job.id)
        except TimeoutError as exc:
            raise GenerationTimeout(job.id) from exc
        except StoreError as exc:
            # The database may be closed before the last waiting client has read its job.
            if not self._lifecycle.is_draining:
                raise
            raise _draining(job) from exc
        if not job.is_finished:
            raise _draining(job)
        return job

    async def remove(self, account_id: str, job_id: str) -> None:
        """Remove a finished job and its images. Raises `JobNotFound` or `JobUnfinished`."""
        await self.get(account_id, job_id)
        await self._images.remove_files(await self._transitions.remove(job_id))

    async def watch(self, job: Job, after: EventId | None = None) -> AsyncGenerator[Event]:
        """Yield a job's events until its end: the stored ones after `after`, or all of them, then new ones."""
        if job.is_finished and self._bus.last(job.id) is None:
            yield self._bus.final_event(EventType.of_end(job.state), job.attempt)
            return
        async with self._bus.follow(job.id, after, previews=True) as events:
            if not job.is_finished:
                await self._publish_state(job)
            async for event in events:
                yield event

    async def _publish_state(self, job: Job) -> None:
        """Publish the position of a watched job, or its end if it ended before the subscription."""
        try:
            await self.positions.publish(job.id)
            job = await self.get(job.account_id, job.id)
        except StoreError:
            # The database may already be closed. The bus is closed too, which ends the watch.
            if not self._lifecycle.is_draining:
                raise
        if job.is_finished:
            self._bus.publish(job.id, EventType.of_end(job.state), attempt=job.attempt)


def _draining(job: Job) -> Draining:
    # The next start cancels jobs with store=false, so that a client may repeat their requests.
    return Draining(retry_after_s=RESTART_S, job_id=job.id if job.options.store else None)


async def _end_of(events: AsyncIterator[Event]) -> None:
    """Return at the final event of a job, or when the bus is closed."""
    async for event in events:
        if event.type.is_final:
            return
