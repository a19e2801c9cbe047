"""Carries jobs from the queue through the engine into the store.

JobRepository are leased in fair order, never more than one batch beyond what the engine works on; the engine's threads and the
event loop meet in a Future. When a painting comes back, its files are written and flushed first, then one transaction
makes the job succeeded with its images, its usage and its charge.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from allaprima.domain.events import EventType
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, JobState
from allaprima.domain.ports import Clock, Engine
from allaprima.errors import Cancelled, Draining, Error, JobNotFound, StoreError
from allaprima.metrics import Metrics
from allaprima.service.accounts.prices import Prices
from allaprima.service.jobs.cache import fingerprint
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.progress import JobProgress
from allaprima.service.jobs.results import image_row, outcome_of
from allaprima.service.jobs.timetable import Timetable
from allaprima.service.jobs.traces import trace_job
from allaprima.service.webhooks import Webhooks
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Paintings being stored at a time; when the store is slower than the engine, the engine waits.
STORING = 4
#: A job that took the server down this often is not tried again.
MAX_CRASHES = 3
#: Seconds after which a stopping server is thought to be back.
RESTART_S = 5.0
#: Seconds between two tries at what a failing store must do.
RETRY_S = 1.0
#: Seconds for which a job is leased, and after which the lease is renewed.
LEASE_S, RENEW_S = 60.0, 20.0
#: Seconds between two looks at the places of those who wait and are watched.
PLACES_S = 0.5
#: Paintings that nobody may keep, held for those who wait for them.
UNKEPT = 64


class Dispatcher:
    """Brings every job that was accepted to its end."""

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        images: ImageRepository,
        engine: Engine,
        clock: Clock,
        events: MemoryEventBus,
        prices: Prices,
        webhooks: Webhooks,
        metrics: Metrics,
        *,
        image_ttl_s: float,
    ) -> None:
        self._jobs = jobs
        self._transitions = transitions
        self._images = images
        self._engine = engine
        self._clock = clock
        self._events = events
        self._prices = prices
        self._webhooks = webhooks
        self._metrics = metrics
        self._image_ttl_s = image_ttl_s
        #: What the engine has, and its measured speed.
        self.timetable = Timetable(engine.abreast)
        # Kept alive by those who wait; a job that nobody waits for has no event.
        self._finished: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        #: All that is leased: what the engine has, and what is being stored.
        self._leased: dict[str, Job] = {}
        #: Those of them that are to be cancelled.
        self._stopped: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unkept: OrderedDict[str, GenerationResult] = OrderedDict()
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._stopping = asyncio.Event()
        self._storing = asyncio.Semaphore(STORING)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carry jobs while the context lasts; what is not finished then waits for the next start.

        A fault of ours in one of its loops ends the context, rather than leave a server that accepts jobs and paints
        none.
        """
        if left := await self._transitions.requeue_all(MAX_CRASHES, self._clock(), self._engine.abreast):
            logger.info("%d jobs of an earlier run wait again", left)
        for job_id, start_by in await self._jobs.start_deadlines():
            self.expect_start(job_id, start_by)
        self._engine.start()
        tasks = [asyncio.create_task(loop()) for loop in (self._dispatch, self._renew, self._tell_places)]
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
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for fault in ends:
                if fault is not None:
                    raise fault

    def _end_with(self, task: "asyncio.Task[None]", owner: "asyncio.Task[Any] | None") -> None:
        """Cancel the owner of the service's context when a task of it ends before it was told to."""
        if not self._stopping.is_set() and not task.cancelled() and owner is not None:
            logger.critical("the server can't go on", exc_info=task.exception())
            owner.cancel()

    def drain(self) -> None:
        """Lease no more jobs, and let those who wait know; jobs that are not finished keep their rows."""
        self._stopping.set()
        self._events.close()
        self._wake.set()
        self._moved.set()
        for event in list(self._finished.values()):
            event.set()

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are leased."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Look for jobs: there is a new one."""
        self._wake.set()

    # For those who wait -----------------------------------------------------------------------------------------

    def finished(self, job_id: str) -> asyncio.Event:
        """Return what is set when the job ends, or when the server stops. To be held while it is waited for."""
        return self._finished.setdefault(job_id, asyncio.Event())

    def tell_end(self, job_id: str, kind: EventType) -> None:
        """Let all who wait or watch know of a job's end, and count it."""
        self._metrics.ended(kind.value)
        self._events.publish(job_id, kind, {})
        if event := self._finished.get(job_id):
            event.set()
        self._moved.set()
        self._webhooks.wake()

    def _tell_state(self, job_id: str, state: JobState) -> None:
        self.tell_end(job_id, EventType(state.value))

    def take_unkept(self, job_id: str) -> GenerationResult | None:
        """Return a painting that was not stored, to the one who waited for it; once."""
        return self._unkept.pop(job_id, None)

    def stop(self, job_id: str) -> None:
        """Stop a job that was leased: at its next block, where the engine has it."""
        if job_id in self._leased:
            self._stopped.add(job_id)
        self._engine.cancel(job_id)

    def expect_start(self, job_id: str, start_by: float) -> None:
        """Fail the job when it still waits at that time."""
        self._keep(asyncio.create_task(self._miss_start(job_id, start_by)))

    async def _miss_start(self, job_id: str, start_by: float) -> None:
        while not self._stopping.is_set() and (left_s := start_by - self._clock()) > 0:
            # The clock may be set, and a timer may be early.
            await self._pause(min(left_s, LEASE_S))
        # It may have been removed meanwhile.
        with suppress(JobNotFound):
            if not self._stopping.is_set() and await self._transitions.miss_start(job_id, self._clock()):
                self.tell_end(job_id, EventType.FAILED)

    # Carrying ---------------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        """Lease queued jobs in order until the server stops: what the engine paints at a time, and the next of each."""
        count = 2 * self._engine.abreast
        slots = asyncio.Semaphore(count)
        while True:
            await slots.acquire()
            job = await self._next_job()
            if job is None:
                return
            self._leased[job.id] = job
            taken = 1
            # It may be what took the server down: nothing is painted beside it, or would go down with it again.
            while job.crashes and taken < count:
                await slots.acquire()
                taken += 1
            self._keep(asyncio.create_task(self._carry(job, partial(_release, slots, taken))))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a job could not be brought to its end; it is taken up at the next start", exc_info=error)

    async def _next_job(self) -> Job | None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                now = self._clock()
                if job := await self._transitions.lease(now, now + LEASE_S, self._tell_state):
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
        end: EventType | None = None
        try:
            end = await self._paint(job, release)
        except Cancelled:
            if await self._insist(lambda: self._transitions.cancel(job, self._clock())):
                end = EventType.CANCELLED
        except Draining:
            await self._insist(lambda: self._transitions.requeue(job))
        except Error as exc:
            error = exc
            if await self._insist(lambda: self._transitions.fail(job, self._clock(), error)):
                end = EventType.FAILED
        finally:
            self._let_go(job, release)
            del self._leased[job.id]
            self._stopped.discard(job.id)
            if end is not None:
                self.tell_end(job.id, end)

    async def _paint(self, job: Job, release: Callable[[], None]) -> EventType | None:
        if self._stopping.is_set():
            raise Draining(retry_after_s=RESTART_S)
        loop = asyncio.get_running_loop()
        self.timetable.give(job)
        self._moved.set()
        if job.id in self._stopped:
            raise Cancelled
        future = self._engine.submit(job.id, job.request, JobProgress(self._events, job, loop, self._begin))
        try:
            painting = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise Cancelled from None
            raise
        painted_at = loop.time()
        # Previews are a watcher's; they would pass for the request's own time.
        self.timetable.end(job, None if self._events.is_watched(job.id) else painting.timings)
        async with self._storing:
            self._let_go(job, release)
            unix_at = self._clock()
            if not await self._store(job, painting):
                return None
        self.timetable.stored(loop.time() - painted_at)
        trace_job(job, painting.timings, unix_at, self._clock())
        self._metrics.painted(
            job.request.model,
            painting.timings.phases | {"store": loop.time() - painted_at},
            [len(image.data) for image in painting.images],
            sum(image.is_flagged for image in painting.images),
        )
        return EventType.SUCCEEDED

    def _begin(self, job: Job) -> None:
        """Note that the engine begins with a job."""
        self.timetable.begin(job)
        self._metrics.started(self._clock() - job.created_at)

    def _let_go(self, job: Job, release: Callable[[], None]) -> None:
        """Give the job's place at the engine to another, once."""
        if self.timetable.take(job.id) or self._stopping.is_set():
            release()

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Try a write until the store does it. Raises `StoreError` when it fails while the server stops."""
        while True:
            try:
                return await write()
            except StoreError:
                if self._stopping.is_set():
                    raise
                await self._pause(RETRY_S)

    async def _store(self, job: Job, painting: GenerationResult) -> bool:
        """Return whether the result was taken; one of an old attempt is not."""
        now = self._clock()
        rows = []
        for place, image in enumerate(painting.images if job.terms.is_kept else ()):
            row = image_row(job, place, image, now, now + (job.terms.image_ttl_s or self._image_ttl_s))
            await self._images.put(row.object_name, image.data)
            rows.append(row)
        if not job.terms.is_kept:
            self._unkept[job.id] = painting
            while len(self._unkept) > UNKEPT:
                self._unkept.popitem(last=False)
        outcome = outcome_of(job, painting, tuple(rows), self._prices, self._fingerprint(job) if rows else None)
        is_taken = await self._insist(lambda: self._transitions.succeed(job, now, outcome))
        if not is_taken:
            logger.warning("job %s: a result of an old attempt was refused", job.id)
        return is_taken

    def _fingerprint(self, job: Job) -> str | None:
        painted_by = next((info for info in self._engine.models if info.id == job.request.model), None)
        return fingerprint(job.request, painted_by) if painted_by else None

    # Beside it --------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Keep the leases of what the engine works on, and take back what others let lapse."""
        while not self._stopping.is_set():
            await self._pause(RENEW_S)
            if self._stopping.is_set():
                return
            # The store has logged what failed; the next round may do better.
            with suppress(StoreError):
                if self._leased:
                    await self._transitions.renew(list(self._leased.values()), self._clock() + LEASE_S)
                if await self._transitions.requeue_lapsed(self._clock()):
                    self._wake.set()

    async def _tell_places(self) -> None:
        """Tell those who watch a queued job its place, when it changes."""
        while not self._stopping.is_set():
            await self._moved.wait()
            self._moved.clear()
            for job_id in self._events.watched:
                with suppress(StoreError):
                    await self.tell_place(job_id)
            await self._pause(PLACES_S)

    async def tell_place(self, job_id: str) -> None:
        """Publish the place of a job, if it is queued and stands elsewhere than it did."""
        place = await self.place(job_id)
        if place is None:
            return
        if not self._events.is_waiting(job_id):
            return
        before = self._events.last(job_id, EventType.QUEUED)
        if before is None or before["queue_position"] != place["queue_position"]:
            self._events.publish(job_id, EventType.QUEUED, place)

    async def place(self, job_id: str) -> dict[str, Any] | None:
        """Return how many jobs go before a queued one, and when it will start and finish; None if it is not queued."""
        found = await self._jobs.ahead_of(job_id)
        if found is None:
            return None
        count, seconds, own_s = found
        start = self._clock() + self.timetable.start_in(count, seconds)
        return {
            "queue_position": count + 1,
            "predicted_start": round(start, 3),
            "predicted_finish": round(start + own_s, 3),
        }


def _release(slots: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        slots.release()
