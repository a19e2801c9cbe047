"""Leases jobs from the queue in fair order and starts them, never more than one batch beyond what the engine works on.

A result's files are written and flushed first; then one transaction makes the job succeeded with its images, its usage
and its charge (`runner`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from allaprima.domain.jobs import Job, JobState
from allaprima.domain.ports import Clock, Engine, QueueSignal
from allaprima.errors import StoreError
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.runner import RETRY_S, JobRunner
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.job_transitions import JobTransitions

logger = logging.getLogger(__name__)

#: A job that was running in this many crashes of the server is not retried.
MAX_CRASHES = 3
#: Seconds for which a job is leased, and after which the lease is renewed.
LEASE_S, RENEW_S = 60.0, 20.0
#: Seconds between two looks for missed start deadlines.
DEADLINE_POLL_S = 0.5


class Dispatcher:
    """Keeps the engine busy with queued jobs, one lease each."""

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
        """Run jobs while the context lasts; jobs that are not finished then wait for the next start.

        A fault in one of the loops ends the context, rather than leave a server that accepts jobs and runs none.
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
            # No task is cancelled in the middle of a transaction; each sees that the server stops.
            self._lifecycle.drain()
            # Closing the engine ends every job that it holds; the job's own task then requeues it.
            await asyncio.to_thread(self._engine.close)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for fault in ends:
                if fault is not None:
                    raise fault

    async def _recover(self) -> None:
        requeued = await self._transitions.recover(MAX_CRASHES, self._clock(), self._engine.max_concurrency)
        if requeued:
            logger.info("%d jobs of an earlier run are queued again", requeued)
        self._reporter.recovered()

    def _stop_after_fault(self, task: "asyncio.Task[None]", owner: "asyncio.Task[Any] | None") -> None:
        if not self._lifecycle.is_draining and not task.cancelled() and owner is not None:
            logger.critical("the server can't go on", exc_info=task.exception())
            owner.cancel()

    async def _lease_jobs(self) -> None:
        """Lease queued jobs in order until the server stops: what the engine works on, and one more for each slot."""
        count = 2 * self._engine.max_concurrency
        slots = asyncio.Semaphore(count)
        while True:
            await slots.acquire()
            job = await self._next_job()
            if job is None:
                return
            held = _HeldSlots(slots)
            # At once, so that a cancellation that comes next finds it.
            self._runner.accept(job)
            # A job that may have crashed the server runs alone, so that no other job crashes with it.
            while job.crashes and held.count < count:
                await slots.acquire()
                held.count += 1
            task = asyncio.create_task(self._runner.run(job, held.release))
            self._tasks.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error(
                "a job could not be finished; it runs again when its lease has expired, or at the next start",
                exc_info=error,
            )

    async def _next_job(self) -> Job | None:
        while not self._lifecycle.is_draining:
            now = self._clock()
            try:
                found = await self._transitions.lease(now, now + LEASE_S)
            except StoreError:
                # The store has logged why; a full disk may be emptied.
                await self._lifecycle.pause(RETRY_S)
                continue
            for job_id, state in found.ended:
                self._reporter.ended(job_id, state)
            if found.job:
                return found.job
            await self._signal.wait()
        return None

    async def _renew_leases(self) -> None:
        """Extend the leases of running jobs, and requeue jobs whose lease another worker let expire."""
        while not self._lifecycle.is_draining:
            await self._lifecycle.pause(RENEW_S)
            # The store has logged what failed; the next round tries again.
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
    """The slots of one job."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self.count = 1

    def release(self) -> None:
        """Free the slots, once."""
        count, self.count = self.count, 0
        for _ in range(count):
            self._slots.release()
