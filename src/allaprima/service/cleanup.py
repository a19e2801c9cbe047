"""What is done now and then: pictures whose time is over go, and what was remembered long enough is forgotten."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from allaprima.domain.ports import Clock
from allaprima.errors import StoreError
from allaprima.store.idempotency import IdempotencyRepository
from allaprima.store.images import ImageRepository
from allaprima.store.outbox import Outbox

logger = logging.getLogger(__name__)


class Housekeeper:
    """Sweeps the store."""

    def __init__(
        self, images: ImageRepository, claims: IdempotencyRepository, outbox: Outbox, clock: Clock, every_s: float
    ) -> None:
        self._images = images
        self._claims = claims
        self._outbox = outbox
        self._clock = clock
        self._every_s = every_s
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep at once and then every so often, while the context lasts."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping.set()
            await task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            # The store has logged what failed; the next round may do better.
            with suppress(StoreError):
                await self._claims.forget_old(self._clock())
                await self._outbox.forget_old(self._clock())
                if gone := await self._images.sweep(self._clock()):
                    logger.info("removed %d pictures whose time was over", gone)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._stopping.wait()
