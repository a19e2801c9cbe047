"""Periodic cleanup of expired images, old jobs, idempotency records and finished webhook deliveries."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.clock import Clock
from allaprima.errors import StoreError
from allaprima.settings import StoreSettings
from allaprima.store.idempotency import IdempotencyRepository
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.outbox import Outbox

logger = logging.getLogger(__name__)

#: Old jobs that one transaction removes, so that it delays no other for long.
JOBS_AT_ONCE = 200


class Cleaner:
    """Cleans the store at the start and then periodically."""

    def __init__(
        self,
        transitions: JobTransitions,
        images: ImageRepository,
        records: IdempotencyRepository,
        outbox: Outbox,
        clock: Clock,
        settings: StoreSettings,
    ) -> None:
        self._transitions = transitions
        self._images = images
        self._records = records
        self._outbox = outbox
        self._clock = clock
        self._every_s = settings.sweep_every_s
        self._job_ttl_s = settings.job_ttl_s
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clean the store until the context exits."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping.set()
            await task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            for step in (self._remove_records, self._remove_old_jobs, self._sweep_images):
                # The store has logged the error; the next round retries. A step that fails delays no other.
                with suppress(StoreError):
                    await step()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._stopping.wait()

    async def _remove_records(self) -> None:
        await self._records.remove_expired(self._clock())
        await self._outbox.remove_finished(self._clock())

    async def _sweep_images(self) -> None:
        if removed := await self._images.sweep(self._clock(), self._stopping.is_set):
            logger.info("removed %d expired images", removed)

    async def _remove_old_jobs(self) -> None:
        if self._job_ttl_s is None:
            return
        removed, is_complete = 0, False
        while not is_complete and not self._stopping.is_set():
            count, names = await self._transitions.remove_old(self._clock() - self._job_ttl_s, JOBS_AT_ONCE)
            await self._images.remove_files(names)
            removed, is_complete = removed + count, count < JOBS_AT_ONCE
        if removed:
            logger.info("removed %d old jobs", removed)
