"""The use cases of jobs: submitted, waited for, watched, cancelled, removed. Every question is one account's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import Event, EventId, EventType
from allaprima.domain.generation import GenerationRequest, GenerationResult
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobOptions, JobState, StoredImage
from allaprima.domain.ports import Clock
from allaprima.errors import (
    Draining,
    GenerationFailed,
    GenerationTimeout,
    ImageNotFound,
    JobFinished,
    JobNotFound,
    StoreError,
)
from allaprima.service.jobs.admission import Admission, Quote
from allaprima.service.jobs.dispatcher import RESTART_S, Dispatcher
from allaprima.service.jobs.events import ENDS, MemoryEventBus
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Seconds that a cancel waits for the engine to confirm it.
CONFIRM_S = 2.0


class JobService:
    """What the floors above do with jobs and pictures."""

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        images: ImageRepository,
        clock: Clock,
        dispatcher: Dispatcher,
        admission: Admission,
        events: MemoryEventBus,
    ) -> None:
        self._jobs = jobs
        self._transitions = transitions
        self._images = images
        self._clock = clock
        self._dispatcher = dispatcher
        self._admission = admission
        self._events = events

    def close_streams(self) -> None:
        """End every stream of events: the server is about to stop."""
        self._events.close()

    def drain(self) -> None:
        """Take no more jobs, lease no more, and let those who wait know."""
        self._dispatcher.drain()

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._dispatcher.is_draining

    async def submit(
        self,
        key: ApiKey,
        request: GenerationRequest,
        terms: JobOptions,
        job_id: str,
        *,
        asked: str = "",
        claim: IdempotencyClaim | None = None,
        start_within_s: float | None = None,
    ) -> Job:
        """See `Admission.submit`."""
        return await self._admission.submit(
            key, request, terms, job_id, asked=asked, claim=claim, start_within_s=start_within_s
        )

    async def quote(self, key: ApiKey, request: GenerationRequest, terms: JobOptions) -> Quote:
        """See `Admission.quote`."""
        return await self._admission.quote(key, request, terms)

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """Return the job once it is finished.

        Raises `GenerationTimeout` when it is not finished in time (it goes on), `Draining` when the server stops
        before (the job waits for the next start), `JobNotFound` for an unknown id.
        """
        try:
            return await self._wait(job_id, timeout_s)
        except StoreError as exc:
            # The database may be closed before the last of those who wait has looked.
            if not self.is_draining:
                raise
            raise Draining(retry_after_s=RESTART_S, job_id=job_id) from exc

    async def _wait(self, job_id: str, timeout_s: float) -> Job:
        event = self._dispatcher.finished(job_id)
        job = await self._get(job_id)
        if job.is_finished:
            return job
        if not self.is_draining:
            try:
                async with asyncio.timeout(timeout_s):
                    await event.wait()
            except TimeoutError as exc:
                raise GenerationTimeout(job_id) from exc
        job = await self._get(job_id)
        if not job.is_finished:
            raise Draining(retry_after_s=RESTART_S, job_id=job_id)
        return job

    async def get(self, account_id: str, job_id: str) -> Job:
        """Return an account's job. Raises `JobNotFound`."""
        job = await self._jobs.get(job_id)
        if job is None or job.account_id != account_id:
            raise JobNotFound
        return job

    async def _get(self, job_id: str) -> Job:
        job = await self._jobs.get(job_id)
        if job is None:
            raise JobNotFound
        return job

    async def count_queued(self) -> int:
        """Return how many jobs wait, of all accounts."""
        return (await self._jobs.load()).queued

    async def place(self, job: Job) -> dict[str, float | None]:
        """Return `queue_position`, `predicted_start` and `predicted_finish`, each None where it has no meaning."""
        place = await self._dispatcher.place(job.id) if job.state == JobState.QUEUED else None
        if place is not None:
            return place
        finish = None
        if job.state == JobState.RUNNING and job.started_at is not None:
            finish = round(self._clock() + self._dispatcher.timetable.finish_in(job.id), 3)
        return {"queue_position": None, "predicted_start": job.started_at, "predicted_finish": finish}

    async def page(
        self,
        account_id: str,
        *,
        state: JobState | None,
        group_id: str | None,
        key_id: str | None,
        before: str | None,
        limit: int,
    ) -> list[Job]:
        """Return an account's jobs, newest first; before: only those older than this id."""
        return await self._jobs.page(
            account_id, state=state, group_id=group_id, key_id=key_id, before=before, limit=limit
        )

    async def cancel(self, account_id: str, job_id: str) -> Job:
        """Stop a job; return it as it is a moment later, which is nearly always cancelled.

        Raises `JobNotFound`, or `JobFinished` for one that has ended.
        """
        await self.get(account_id, job_id)
        event = self._dispatcher.finished(job_id)
        job = await self._transitions.ask_cancel(job_id, self._clock())
        if job.state == JobState.CANCELLED:
            self._dispatcher.tell_end(job_id, EventType.CANCELLED)
            return job
        self._dispatcher.stop(job_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_S):
                await event.wait()
        job = await self._get(job_id)
        if job.is_finished and job.state != JobState.CANCELLED:
            raise JobFinished(job.state.value)
        return job

    async def cancel_group(self, account_id: str, group_id: str) -> list[Job]:
        """Stop all unfinished jobs of a group; return them."""
        unfinished = await self._jobs.unfinished_of_group(account_id, group_id)
        # The queued ones first, or the engine would begin each as the one before it stops.
        ordered = sorted(unfinished, key=lambda job: job.state == JobState.RUNNING)
        cancelled = []
        for job in ordered:
            # A job may finish, or be removed, while its brothers are stopped.
            with suppress(JobNotFound, JobFinished):
                cancelled.append(await self.cancel(account_id, job.id))
        return cancelled

    async def remove(self, account_id: str, job_id: str) -> None:
        """Remove a finished job and its pictures. Raises `JobNotFound`, or `JobUnfinished` for one that is not."""
        await self.get(account_id, job_id)
        await self._images.remove_files(await self._transitions.remove(job_id))

    async def watch(self, account_id: str, job_id: str, after: EventId | None) -> AsyncIterator[Event]:
        """Give a job's events to its end, those after one that was seen before. Raises `JobNotFound` at once."""
        job = await self.get(account_id, job_id)
        return self._watch(job, after)

    async def _watch(self, job: Job, after: EventId | None) -> AsyncIterator[Event]:
        if job.is_finished and not self._events.knows(job.id):
            yield self._events.end_of(EventType(job.state.value))
            return
        following = self._events.follow(job.id, after)
        if not job.is_finished:
            await self._dispatcher.tell_place(job.id)
            # It may have ended before anybody kept its events.
            job = await self._get(job.id)
            if job.is_finished:
                self._events.publish(job.id, EventType(job.state.value), {})
        async for event in following:
            yield event
            if event.type in ENDS:
                return

    # Pictures ---------------------------------------------------------------------------------------------------

    async def images_of(self, job: Job) -> list[StoredImage]:
        """Return a succeeded job's pictures in order."""
        return (await self._jobs.images_of([job.id], self._clock()))[job.id]

    async def images_of_all(self, jobs: list[Job]) -> dict[str, list[StoredImage]]:
        """Return the pictures of some jobs by job id."""
        return await self._jobs.images_of([job.id for job in jobs], self._clock())

    def take_unkept(self, job: Job) -> GenerationResult | None:
        """Return the painting of a job whose pictures are stored nowhere, to the one who waited for it; once."""
        return self._dispatcher.take_unkept(job.id)

    async def find_image(self, account_id: str, image_id: str) -> StoredImage:
        """Return an account's picture that has not expired. Raises `ImageNotFound`."""
        image = await self._images.find(image_id, self._clock())
        job = await self._jobs.get(image.job_id) if image else None
        if image is None or job is None or job.account_id != account_id:
            raise ImageNotFound
        return image

    async def remove_image(self, account_id: str, image_id: str) -> None:
        """Remove a picture for good. Raises `ImageNotFound`."""
        await self.find_image(account_id, image_id)
        await self._images.remove(image_id)

    async def read_image(self, image_id: str) -> tuple[StoredImage, bytes] | None:
        """Return a picture that has not expired, row and file."""
        return await self._images.get(image_id, self._clock())

    async def read_object(self, image: StoredImage) -> bytes:
        """Return a stored picture's file. Raises `GenerationFailed` when it is gone."""
        found = await self.read_image(image.id)
        if found is None:
            raise GenerationFailed("the picture is no longer in the store")
        return found[1]
