"""The way of a job: submitted, leased to the engine, stored, waited for.

A job is a row before it is acknowledged. The dispatcher leases jobs from the database, never more than one beyond
what the engine works on; the engine's thread and the event loop meet in a Future. When a painting comes back, its
files are written and flushed first, then one transaction makes the job succeeded with its images and its usage.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from uuid_utils import uuid7

from allaprima.errors import (
    Cancelled,
    Draining,
    Error,
    FieldProblem,
    GenerationFailed,
    GenerationTimeout,
    InvalidRequest,
    JobNotFound,
    QueueFull,
    StoreError,
)
from allaprima.request import ImageRequest, LongPrompt, Painting, StepDone
from allaprima.service.ports import Clock, Engine
from allaprima.store.images import Images
from allaprima.store.jobs import ImageRow, Job, Jobs, UsageRow
from allaprima.store.keys import KeyRow
from allaprima.store.schema import JobState

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Jobs handed to the engine at a time: the one it paints, and the next.
AHEAD = 2
#: A job that took the server down this often is not tried again.
MAX_CRASHES = 3
#: Seconds a job is thought to take before any was measured.
FIRST_GUESS_S = 2.0
#: Seconds after which a stopping server is thought to be back.
RESTART_S = 5.0
#: Seconds between two tries at what a failing store must do.
RETRY_S = 1.0


def new_job_id() -> str:
    """Return a new id; ids sort by time."""
    return str(uuid7())


class JobService:
    """Submits jobs, carries them through the engine into the store, and waits for them."""

    def __init__(
        self,
        jobs: Jobs,
        images: Images,
        engine: Engine,
        clock: Clock,
        *,
        queue_size: int,
        image_ttl_s: float,
        sweep_every_s: float,
    ) -> None:
        self._jobs = jobs
        self._images = images
        self._engine = engine
        self._clock = clock
        self._queue_size = queue_size
        self._image_ttl_s = image_ttl_s
        self._sweep_every_s = sweep_every_s
        # Kept alive by those who wait; a job that nobody waits for has no event.
        self._finished: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._carried: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._submitting = asyncio.Lock()
        self._job_s = FIRST_GUESS_S

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carry jobs while the context lasts; what is not finished then waits for the next start.

        A fault of ours in the dispatcher or the sweeper ends the context, rather than leave a server that accepts jobs
        and paints none.
        """
        if left := await self._jobs.requeue_all(MAX_CRASHES, self._clock()):
            logger.info("%d jobs of an earlier run wait again", left)
        self._engine.start()
        tasks = [asyncio.create_task(self._dispatch()), asyncio.create_task(self._sweep())]
        owner = asyncio.current_task()
        for task in tasks:
            task.add_done_callback(lambda task: self._end_with(task, owner))
        try:
            yield
        finally:
            # No task is cut off in the middle of a transaction; each sees that it is to stop.
            self.drain()
            # Closing the engine ends every job it holds; each is then put back into the queue by its own task.
            await asyncio.to_thread(self._engine.close)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*self._carried, return_exceptions=True)
            for fault in ends:
                if fault is not None:
                    raise fault

    def _end_with(self, task: "asyncio.Task[None]", owner: "asyncio.Task[Any] | None") -> None:
        """Cancel the owner of the service's context when a task of it ends before it was told to."""
        if not self._stopping.is_set() and not task.cancelled() and owner is not None:
            logger.critical("the server can't go on", exc_info=task.exception())
            owner.cancel()

    def drain(self) -> None:
        """Take no more jobs, lease no more, and let those who wait know; jobs that are not finished keep their rows."""
        self._stopping.set()
        self._wake.set()
        for event in list(self._finished.values()):
            event.set()

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._stopping.is_set()

    async def submit(self, key: KeyRow, request: ImageRequest, job_id: str) -> Job:
        """Store a job; from here on it can't be lost.

        Raises `InvalidRequest` for a prompt that is longer than the request lets it be, `QueueFull` or `Draining`.
        """
        if request.on_long_prompt == LongPrompt.REFUSE and (over := self._engine.tokens_over(request)):
            raise InvalidRequest(FieldProblem("prompt", f"has {over} tokens more than the model reads; shorten it"))
        job = Job(
            id=job_id,
            account_id=key.account_id,
            key_id=key.id,
            state=JobState.QUEUED,
            request=request,
            created_at=self._clock(),
            started_at=None,
            finished_at=None,
            attempt=0,
            crashes=0,
            error_code=None,
            error_message=None,
            result=None,
        )
        # One at a time, so that the queue's limit holds exactly.
        async with self._submitting:
            if self._stopping.is_set():
                raise Draining(retry_after_s=RESTART_S)
            if await self._jobs.count_waiting() >= self._queue_size:
                raise QueueFull(retry_after_s=self._job_s)
            await self._jobs.add(job)
        self._wake.set()
        return job

    async def wait(self, job_id: str, timeout_s: float) -> Job:
        """Return the job once it is finished.

        Raises `GenerationTimeout` when it is not finished in time (it goes on), `Draining` when the server stops
        before (the job waits for the next start), `JobNotFound` for an unknown id.
        """
        event = self._finished.setdefault(job_id, asyncio.Event())
        job = await self._get(job_id)
        if job.is_finished:
            return job
        if not self._stopping.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await event.wait()
            except TimeoutError as exc:
                raise GenerationTimeout(job_id) from exc
        job = await self._get(job_id)
        if not job.is_finished:
            raise Draining(retry_after_s=RESTART_S)
        return job

    async def images_of(self, job: Job) -> list[ImageRow]:
        """Return a succeeded job's pictures in order."""
        return await self._jobs.images_of(job.id)

    async def read_image(self, image_id: str) -> tuple[ImageRow, bytes] | None:
        """Return a picture that has not expired, row and file."""
        return await self._images.get(image_id, self._clock())

    async def read_object(self, image: ImageRow) -> bytes:
        """Return a stored picture's file. Raises `GenerationFailed` when it is gone."""
        found = await self.read_image(image.id)
        if found is None:
            raise GenerationFailed("the picture is no longer in the store")
        return found[1]

    async def _get(self, job_id: str) -> Job:
        job = await self._jobs.get(job_id)
        if job is None:
            raise JobNotFound
        return job

    # Carrying ---------------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        """Lease queued jobs in order, at most `AHEAD` at a time, until the server stops."""
        slots = asyncio.Semaphore(AHEAD)
        while True:
            await slots.acquire()
            job = await self._next_job()
            if job is None:
                return
            task = asyncio.create_task(self._carry(job, slots.release))
            self._carried.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._carried.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a job could not be brought to its end; it is taken up at the next start", exc_info=error)

    async def _next_job(self) -> Job | None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if job := await self._jobs.lease(self._clock()):
                    return job
            except StoreError:
                # The store has logged why; a full disk may be emptied.
                await self._pause(RETRY_S)
                continue
            await self._wake.wait()
        return None

    async def _pause(self, seconds: float) -> None:
        """Wait, or less when the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _carry(self, job: Job, release: Callable[[], None]) -> None:
        """Bring one leased job to its end, whatever the end is."""
        try:
            if self._stopping.is_set():
                raise Draining(retry_after_s=RESTART_S)  # noqa: TRY301 - as the engine would
            painting = await asyncio.wrap_future(self._engine.submit(job.id, job.request, _ignore))
            await self._store(job, painting)
            self._job_s = 0.8 * self._job_s + 0.2 * (painting.timings.inference + painting.timings.encode)
        except Cancelled:
            await self._insist(lambda: self._jobs.cancel(job, self._clock()))
        except Draining:
            await self._insist(lambda: self._jobs.requeue(job))
        except Error as exc:
            code, message = exc.code, exc.message
            await self._insist(lambda: self._jobs.fail(job, self._clock(), code, message))
        finally:
            release()
            if event := self._finished.get(job.id):
                event.set()

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Try a write until the store does it. Raises `StoreError` when it fails while the server stops."""
        while True:
            try:
                return await write()
            except StoreError:
                if self._stopping.is_set():
                    raise
                await self._pause(RETRY_S)

    async def _store(self, job: Job, painting: Painting) -> None:
        now = self._clock()
        rows = []
        for place, image in enumerate(painting.images):
            image_id = new_job_id()
            suffix = job.request.image_format.value
            row = ImageRow(
                id=image_id,
                job_id=job.id,
                place=place,
                object_name=f"{image_id}.{suffix}",
                content_type=job.request.image_format.content_type,
                size_bytes=len(image.data),
                sha256=hashlib.sha256(image.data).hexdigest(),
                seed=image.seed,
                nsfw_score=image.nsfw_score,
                is_flagged=image.is_flagged,
                created_at=now,
                expires_at=now + self._image_ttl_s,
            )
            await self._images.put(row.object_name, image.data)
            rows.append(row)
        charged = sum(not image.is_flagged for image in painting.images)
        pixels = job.request.width * job.request.height * charged
        result = {
            "model": painting.model,
            "revision": painting.revision,
            "precision": painting.precision,
            "warnings": list(painting.warnings),
            "timings": {
                "inference": painting.timings.inference,
                "text": painting.timings.text,
                "steps": list(painting.timings.steps),
                "decode": painting.timings.decode,
                "safety": painting.timings.safety,
                "encode": painting.timings.encode,
            },
        }
        charge = UsageRow(painting.model, charged, pixels / 1e6, credits=0)
        if not await self._insist(lambda: self._jobs.succeed(job, now, result, rows, charge)):
            logger.warning("job %s: a result of an old attempt was refused", job.id)

    async def _sweep(self) -> None:
        while not self._stopping.is_set():
            # The store has logged what failed; the next round may do better.
            with suppress(StoreError):
                if gone := await self._images.sweep(self._clock()):
                    logger.info("removed %d pictures whose time was over", gone)
            await self._pause(self._sweep_every_s)


def _ignore(_step: StepDone) -> None:
    """Nobody watches the steps of a job yet."""
