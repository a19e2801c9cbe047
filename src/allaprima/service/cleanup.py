"""Periodic cleanup of expired images, idempotency records and finished webhook deliveries."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.clock import Clock
from allaprima.errors import StoreError
from allaprima.store.idempotency import IdempotencyRepository
from allaprima.store.images import ImageRepository
from allaprima.store.outbox import Outbox

logger = logging.getLogger(__name__)


class Cleaner:
    """Cleans the store at the start and then periodically."""

    def __init__(
        self, images: ImageRepository, records: IdempotencyRepository, outbox: Outbox, clock: Clock, every_s: float
    ) -> None:
        self._images = images
        self._records = records
        self._outbox = outbox
        self._clock = clock
        self._every_s = every_s
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
            # The store has logged the error; the next round retries.
            with suppress(StoreError):
                await self._records.remove_expired(self._clock())
                await self._outbox.remove_finished(self._clock())
                if removed := await self._images.sweep(self._clock()):
                    logger.info("removed %d expired images", removed)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._stopping.wait()
