"""Follows the jobs of this process's clients that other processes run, and the requests to cancel its own jobs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.hints import Hint, HintKind, Reconnected
from allaprima.domain.ports import Hints
from allaprima.errors import StoreError
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.jobs.shared_events import SharedEventBus
from allaprima.service.jobs.signal import SharedQueueSignal
from allaprima.store.jobs import JobRepository

logger = logging.getLogger(__name__)

#: Seconds between two looks at all jobs that clients of this process wait for or watch.
POLL_S = 2.0


class JobNews:
    """Looks at jobs in the database: at once after a hint, and every `POLL_S` because hints may be lost."""

    def __init__(
        self,
        hints: Hints,
        jobs: JobRepository,
        runner: JobRunner,
        bus: SharedEventBus,
        signal: SharedQueueSignal,
        poll_s: float = POLL_S,
    ) -> None:
        self._hints = hints
        self._jobs = jobs
        self._runner = runner
        self._bus = bus
        self._signal = signal
        self._poll_s = poll_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow hints and the database until the context exits."""
        async with self._hints.follow() as received:
            tasks = [asyncio.create_task(self._receive(received)), asyncio.create_task(self._look_repeatedly())]
            for task in tasks:
                task.add_done_callback(_log_fault)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, received: AsyncIterator[Hint | Reconnected]) -> None:
        async for hint in received:
            if isinstance(hint, Reconnected):
                self._signal.hear()
                self._bus.checklist.add(*self._bus.unfinished)
            elif hint.kind == HintKind.WORK:
                self._signal.hear()
            else:
                self._bus.checklist.add(hint.job_id)

    async def _look_repeatedly(self) -> None:
        loop = asyncio.get_running_loop()
        poll_at = loop.time() + self._poll_s
        while True:
            hinted = await self._bus.checklist.take(poll_at)
            own = self._attempts().keys()
            ids = hinted & (self._bus.unfinished | own)
            if loop.time() >= poll_at:
                # The heartbeat asks for the own jobs.
                ids |= self._bus.unfinished - own
                poll_at = loop.time() + self._poll_s
            # The store has logged the error; the next look repeats this one.
            with suppress(StoreError):
                await self._look(ids)

    def _attempts(self) -> dict[str, int]:
        """Return the attempts of the jobs that this process runs, by id."""
        return {job.id: job.attempt for job in self._runner.jobs}

    async def _look(self, ids: set[str]) -> None:
        if not ids:
            return
        found, attempts = await self._jobs.progress(ids), self._attempts()
        for progress in found:
            if attempts.get(progress.id) != progress.attempt:
                self._bus.observe(progress)
            elif progress.is_cancel_requested:
                self._runner.cancel(progress.id)
        for job_id in ids - {progress.id for progress in found}:
            self._bus.remove(job_id)


def _log_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("news of jobs that other processes run are not followed any more", exc_info=error)
