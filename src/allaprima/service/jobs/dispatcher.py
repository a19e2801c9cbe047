"""Leases jobs from the queue in fair order and passes them to the engine, at most two per engine slot.

`runner` brings each job to its end: it writes and flushes the image files, then one transaction stores the state, the
images, the usage and the charge.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from allaprima.domain.jobs import Job
from allaprima.domain.ports import Engine, QueueSignal
from allaprima.errors import StoreError
from allaprima.service.jobs.queue_monitor import QueueMonitor
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.runner import RETRY_S, JobRunner
from allaprima.service.jobs.worker import Worker
from allaprima.service.lifecycle import Lifecycle

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs queued jobs in the engine, those of dead workers too."""

    def __init__(
        self,
        worker: Worker,
        monitor: QueueMonitor,
        engine: Engine,
        runner: JobRunner,
        reporter: JobReporter,
        signal: QueueSignal,
        lifecycle: Lifecycle,
    ) -> None:
        self._worker = worker
        self._monitor = monitor
        self._engine = engine
        self._runner = runner
        self._reporter = reporter
        self._signal = signal
        self._lifecycle = lifecycle
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run jobs until the context exits. Unfinished jobs then wait for the next start.

        An unexpected error in one of the loops cancels the context, since the server would accept jobs and run none.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._monitor.recover()
            self._engine.start()
            owner = asyncio.current_task()
            for loop in (self._lease_jobs, self._monitor.reap_repeatedly, self._monitor.fail_late_jobs):
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
            # Accepted before anything else is awaited, so that a cancellation finds the job. If this worker was taken
            # for dead, an earlier attempt of the job may still run here.
            await self._runner.accept(job)
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
                "a job could not be finished; it is retried after the next heartbeats",
                exc_info=error,
            )

    async def _next_job(self) -> Job | None:
        while await self._may_lease():
            try:
                found = await self._worker.lease()
            except StoreError:
                # The store has logged the error, such as a full disk, which may be temporary.
                await self._lifecycle.pause(RETRY_S)
                continue
            if found.job:
                return found.job
            if found.ended:
                self._reporter.ended(*found.ended)
            else:
                await self._signal.wait()
        return None

    async def _may_lease(self) -> bool:
        """Wait while jobs would be generated for nothing, because no image can be stored; False if the server stops."""
        await self._runner.until_storable()
        return not self._lifecycle.is_draining


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
