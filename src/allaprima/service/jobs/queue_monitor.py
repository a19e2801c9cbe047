"""Watches the queue: requeues the jobs of dead workers, and fails jobs whose start deadline has passed."""

import logging
from contextlib import suppress

from allaprima.domain.clock import Clock
from allaprima.domain.jobs import JobState
from allaprima.errors import StoreError
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.worker import Worker
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.reaper import Reaper

logger = logging.getLogger(__name__)

#: Number of crashes of the server during a job after which the job is not retried.
MAX_CRASHES = 3
#: Seconds between two looks for dead workers, where there can be others.
REAP_S = 1.0
#: Seconds between two checks for missed start deadlines.
DEADLINE_POLL_S = 0.5


class QueueMonitor:
    """Moves the jobs that no worker moves."""

    def __init__(
        self,
        worker: Worker,
        reaper: Reaper,
        transitions: JobTransitions,
        reporter: JobReporter,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._worker = worker
        self._reaper = reaper
        self._transitions = transitions
        self._reporter = reporter
        self._lifecycle = lifecycle
        self._clock = clock

    async def recover(self) -> None:
        """Requeue or end the jobs that no registered worker has, at the start of the server. Raises `StoreError`.

        In SQLite that is every job of an earlier server. On a shared database a server that has just started can't
        judge others, which may have lost their contact to the database for a moment.
        """
        await self._reap(judges=not self._reaper.is_shared)

    async def _reap(self, *, judges: bool) -> None:
        reaped = await self._reaper.reap(self._worker.id, MAX_CRASHES, self._clock(), judges=judges)
        for job_id, state in reaped.ended:
            self._reporter.ended(job_id, state)
        if reaped.requeued:
            logger.info("requeued %d jobs of workers that have died", reaped.requeued)
            self._lifecycle.wake()

    async def reap_repeatedly(self) -> None:
        """Look for dead workers until the server stops."""
        while self._reaper.is_shared and not self._lifecycle.is_draining:
            await self._lifecycle.pause(REAP_S)
            # A worker that can't reach the database can't judge others. The store has logged the error.
            with suppress(StoreError):
                if self._worker.is_in_contact:
                    await self._reap(judges=True)
        await self._lifecycle.until_draining()

    async def fail_late_jobs(self) -> None:
        """Fail queued jobs whose start deadline has passed, until the server stops."""
        while not self._lifecycle.is_draining:
            with suppress(StoreError):
                for job_id in await self._transitions.fail_missed_starts(self._clock()):
                    self._reporter.ended(job_id, JobState.FAILED)
            await self._lifecycle.pause(DEADLINE_POLL_S)
