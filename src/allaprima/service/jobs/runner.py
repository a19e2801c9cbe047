"""Runs leased jobs to their end: generates, stores and finishes them."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from allaprima.domain.clock import Clock
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, JobOutcome, JobState
from allaprima.domain.ports import Engine
from allaprima.errors import Cancelled, Draining, Error, ImageStoreUnavailable, StoreError
from allaprima.service.jobs.cancelled_jobs import CancelledJobs
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.results import ResultStore
from allaprima.service.lifecycle import RESTART_S, Lifecycle
from allaprima.store.job_transitions import JobTransitions

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Number of results that are stored concurrently. If the store is slower than the engine, the engine waits.
MAX_STORING = 4
#: Number of cancellations that are remembered for jobs which have not been accepted yet.
MAX_EARLY = 1000
#: Seconds between two attempts of a write that must succeed.
RETRY_S = 1.0


class JobRunner:
    """Runs leased jobs. Each ends in exactly one state."""

    def __init__(
        self,
        engine: Engine,
        transitions: JobTransitions,
        results: ResultStore,
        reporter: JobReporter,
        eta: Eta,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._transitions = transitions
        self._results = results
        self._reporter = reporter
        self._eta = eta
        self._lifecycle = lifecycle
        self._clock = clock
        #: Accepted jobs by id: in the engine or being stored.
        self._jobs: dict[str, Job] = {}
        #: Ids of accepted jobs whose cancellation was requested.
        self._cancelled = CancelledJobs()
        #: Seconds that the engine generated each accepted job, once it has.
        self._compute_s: dict[str, float] = {}
        self._storing = asyncio.Semaphore(MAX_STORING)
        #: Jobs whose cancellation may have been stored between their lease and the lease's answer.
        self._cancelled_early: deque[str] = deque(maxlen=MAX_EARLY)
        #: Set when the accepted job has ended, by id.
        self._ends: dict[str, asyncio.Event] = {}

    @property
    def jobs(self) -> list[Job]:
        """The accepted jobs that have not ended."""
        return list(self._jobs.values())

    async def accept(self, job: Job) -> None:
        """Register a leased job, so that it can be cancelled before `run` is called.

        Waits while an earlier attempt of the job runs; without one, the job is registered at once.
        """
        if earlier := self._ends.get(job.id):
            await earlier.wait()
        self._jobs[job.id] = job
        self._ends[job.id] = asyncio.Event()
        if job.id in self._cancelled_early:
            self._cancelled.add(job.id)

    async def until_storable(self) -> None:
        """Wait while a job was put back because the image store is away, until it answers or the server stops."""
        await self._results.until_storable()

    def cancel(self, job_id: str) -> bool:
        """Stop an accepted job before it runs, after its current block, or before its images are stored or delivered.

        Returns False for a job that this process does not run.
        """
        is_own = job_id in self._jobs
        if is_own:
            self._cancelled.add(job_id)
        else:
            self._cancelled_early.append(job_id)
        self._engine.cancel(job_id)
        self._results.abandon(job_id)
        return is_own

    async def run(self, job: Job, release: Callable[[], None]) -> None:
        """Run an accepted job. release: called when the engine can run another job, possibly several times.

        Raises `StoreError` if the store fails while the server stops; the job is then retried after the next start.
        """

        def free() -> None:
            self._eta.released(job.id)
            release()

        end: JobState | None = None
        error: Error | None = None
        began = asyncio.get_running_loop().time()
        try:
            end = await self._run(job, free)
        except Cancelled:
            spent_s = self._spent(job)
            if await self._persist(lambda: self._transitions.cancel(job, self._clock(), spent_s)):
                end = JobState.CANCELLED
        except Draining:
            await self._persist(lambda: self._transitions.requeue(job))
            # Another process may run it.
            self._lifecycle.wake()
        except ImageStoreUnavailable:
            # The outage is no fault of the job, so no crash is counted.
            logger.warning("job %s is put back: its images could not be stored", job.id)
            await self._persist(lambda: self._transitions.requeue(job))
            self._lifecycle.wake()
        except Error as exc:
            error, spent_s = exc, self._spent(job)
            if isinstance(error, StoreError) and self._lifecycle.is_draining:
                # The store may work after the next start.
                await self._persist(lambda: self._transitions.requeue(job))
            elif await self._persist(lambda: self._transitions.fail(job, self._clock(), error, spent_s)):
                end = JobState.FAILED
        finally:
            free()
            del self._jobs[job.id]
            self._ends.pop(job.id).set()
            self._cancelled.discard(job.id)
            self._compute_s.pop(job.id, None)
            if end is not None:
                self._reporter.ended(job.id, end)
                _log_end(job, end, asyncio.get_running_loop().time() - began, error)

    async def _run(self, job: Job, release: Callable[[], None]) -> JobState | None:
        result = await self._generate(job)
        self._compute_s[job.id] = result.timings.total
        loop = asyncio.get_running_loop()
        finished_at = loop.time()
        generated_at = self._clock()
        self._reporter.generated(job, result)
        if not job.options.store:
            release()
            return await self._deliver(job, result, generated_at)
        await self._cancelled.stopping(job.id, self._storing.acquire())
        try:
            release()
            outcome = await self._cancelled.stopping(job.id, self._results.store(job, result))
            if not await self._succeed(job, outcome):
                return None
        finally:
            self._storing.release()
        self._reporter.stored(job, result, generated_at, loop.time() - finished_at)
        return JobState.SUCCEEDED

    async def _deliver(self, job: Job, result: GenerationResult, generated_at: float) -> JobState | None:
        """End a job with `store=false` once its client has received the result. Raises `Cancelled` if it has not."""
        if job.id in self._cancelled:
            raise Cancelled
        loop = asyncio.get_running_loop()
        async with self._results.delivered(job, result) as outcome:
            delivered_at = loop.time()
            if not await self._succeed(job, outcome):
                return None
            self._reporter.stored(job, result, generated_at, loop.time() - delivered_at)
        return JobState.SUCCEEDED

    async def _succeed(self, job: Job, outcome: JobOutcome) -> bool:
        """Store the outcome of a job. Returns False for an old attempt."""
        is_current = await self._persist(lambda: self._transitions.succeed(job, self._clock(), outcome))
        if not is_current:
            logger.warning("job %s: discarded the result of an old attempt", job.id)
        return is_current

    async def _generate(self, job: Job) -> GenerationResult:
        if self._lifecycle.is_draining:
            raise Draining(retry_after_s=RESTART_S)
        self._eta.submitted(job)
        if job.id in self._cancelled:
            raise Cancelled
        future = self._engine.enqueue(job.id, job.request, self._reporter.progress(job))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise Cancelled from None
            raise

    def _spent(self, job: Job) -> float:
        """Return the seconds that the engine generated a job, which has not ended."""
        return self._compute_s.get(job.id) or self._eta.spent(job.id)

    async def _persist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Retry a write until it succeeds. Raises `StoreError` if it fails while the server stops."""
        while True:
            try:
                return await write()
            except StoreError:
                if self._lifecycle.is_draining:
                    raise
                await self._lifecycle.pause(RETRY_S)


def _log_end(job: Job, end: JobState, seconds: float, error: Error | None) -> None:
    """Log one line for a job that ran, without its prompt."""
    request = job.request
    what = f"{job.options.model} {request.width}x{request.height}"
    what += f" x{request.count}" if request.count > 1 else ""
    logger.log(
        logging.WARNING if error else logging.INFO,
        "%s in %.2f s: %s, key %s, job %s%s",
        end.value,
        seconds,
        what,
        job.options.key_prefix or job.key_id,
        job.id,
        f": {error.message}" if error else "",
    )
