"""Leases jobs from the queue in fair order and passes them to the engine, at most two per engine slot.

`runner` brings each job to its end: it writes and flushes the image files, then one transaction stores the state, the
images, the usage and the charge.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from allaprima.domain.clock import Clock
from allaprima.domain.jobs import Job, JobState
from allaprima.domain.ports import Engine, QueueSignal
from allaprima.errors import StoreError
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.runner import RETRY_S, JobRunner
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.job_transitions import JobTransitions

logger = logging.getLogger(__name__)

#: Number of crashes of the server during a job after which the job is not retried.
MAX_CRASHES = 3
#: Duration of a lease, and time between its renewals, in seconds.
LEASE_S, RENEW_S = 60.0, 20.0
#: Seconds between two checks for missed start deadlines.
DEADLINE_POLL_S = 0.5


class Dispatcher:
    """Runs queued jobs in the engine. Each has a lease, which is renewed while the job runs."""

    def __init__(
        self,
        transitions: JobTransitions,
        engine: Engine,
        runner: JobRunner,
        reporter: JobReporter,
        signal: QueueSignal,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._transitions = transitions
        self._engine = engine
        self._runner = runner
        self._reporter = reporter
        self._signal = signal
        self._lifecycle = lifecycle
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run jobs until the context exits. Unfinished jobs then wait for the next start.

        An unexpected error in one of the loops cancels the context, since the server would accept jobs and run none.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._recover()
            self._engine.start()
            owner = asyncio.current_task()
            for loop in (self._lease_jobs, self._renew_leases, self._fail_late_jobs):
                task = asyncio.create_task(loop())
                task.add_done_callback(lambda task: self._stop_after_fault(task, owner))
                tasks.append(task)
            yield
        finally:
            # The tasks end by themselves when the server drains, so none is cancelled in a transaction.
            self._lifecycle.drain()
            # Closing the engine ends all its jobs; the task of each job then requeues it.
            await asyncio.to_thread(self._engine.close)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for fault in ends:
                if fault is not None:
                    raise fault

    async def _recover(self) -> None:
        requeued = await self._transitions.recover(MAX_CRASHES, self._clock(), self._engine.max_concurrency)
        if requeued:
            logger.info("requeued %d jobs of an earlier run", requeued)
        self._reporter.recovered()

    def _stop_after_fault(self, task: "asyncio.Task[None]", owner: "asyncio.Task[Any] | None") -> None:
        if not self._lifecycle.is_draining and not task.cancelled() and owner is not None:
            logger.critical("the dispatcher failed; the server stops", exc_info=task.exception())
            owner.cancel()

    async def _lease_jobs(self) -> None:
        """Lease queued jobs until the server stops: one running job and one waiting job per engine slot."""
        count = 2 * self._engine.max_concurrency
        slots = asyncio.Semaphore(count)
        while True:
            await slots.acquire()
            job = await self._next_job()
            if job is None:
                return
            held = _HeldSlots(slots)
            # Accepted before the next await, so that a cancellation finds the job.
            self._runner.accept(job)
            # A job that may have crashed the server runs alone, so that a crash affects no other job.
            while job.crashes and held.count < count:
                await slots.acquire()
                held.count += 1
            task = asyncio.create_task(self._runner.run(job, held.release))
            self._tasks.add(task)
            task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error(
                "a job could not be finished; it is retried after its lease expires or at the next start",
                exc_info=error,
            )

    async def _next_job(self) -> Job | None:
        while await self._may_lease():
            now = self._clock()
            try:
                found = await self._transitions.lease(now, now + LEASE_S)
            except StoreError:
                # The store has logged the error, such as a full disk, which may be temporary.
                await self._lifecycle.pause(RETRY_S)
                continue
            for job_id, state in found.ended:
                self._reporter.ended(job_id, state)
            if found.job:
                return found.job
            await self._signal.wait()
        return None

    async def _may_lease(self) -> bool:
        """Wait while jobs would be generated for nothing, because no image can be stored; False if the server stops."""
        await self._runner.until_storable()
        return not self._lifecycle.is_draining

    async def _renew_leases(self) -> None:
        """Renew the leases of running jobs, and requeue jobs with an expired lease."""
        while not self._lifecycle.is_draining:
            await self._lifecycle.pause(RENEW_S)
            # The store has logged the error; the next round retries.
            with suppress(StoreError):
                if jobs := self._runner.jobs:
                    await self._transitions.renew(jobs, self._clock() + LEASE_S)
                if not self._lifecycle.is_draining and await self._transitions.requeue_expired(self._clock()):
                    self._signal.notify()

    async def _fail_late_jobs(self) -> None:
        """Fail queued jobs whose start deadline has passed."""
        while not self._lifecycle.is_draining:
            with suppress(StoreError):
                for job_id in await self._transitions.fail_missed_starts(self._clock()):
                    self._reporter.ended(job_id, JobState.FAILED)
            await self._lifecycle.pause(DEADLINE_POLL_S)


class _HeldSlots:
    """The slots that one job occupies."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self.count = 1

    def release(self) -> None:
        """Free the slots. Later calls do nothing."""
        count, self.count = self.count, 0
        for _ in range(count):
            self._slots.release()
