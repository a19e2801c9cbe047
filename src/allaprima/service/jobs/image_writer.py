"""Writes generated images to the image store, and waits for a store that is away."""

import asyncio
import logging

from allaprima.errors import ImageStoreUnavailable
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.images import ImageRepository

logger = logging.getLogger(__name__)

#: Longest time that an image waits for an unavailable store, in seconds.
MAX_WAIT_S = 600.0
#: Seconds between two attempts.
RETRY_S = 1.0
#: Seconds for which an attempt may continue after the server began to stop.
STOP_S = 5.0


class ImageWriter:
    """Writes images, each under a name of its own, so that a write can be repeated."""

    def __init__(self, images: ImageRepository, lifecycle: Lifecycle) -> None:
        self._images = images
        self._lifecycle = lifecycle
        #: Whether an image was given up, and the store has not answered since.
        self._is_away = False

    async def write(self, name: str, data: bytes) -> None:
        """Write an image durably, and retry while the store is unavailable.

        Raises `ImageStoreUnavailable` after `MAX_WAIT_S`, or soon when the server stops, and other `StoreError`s at
        once.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MAX_WAIT_S
        while True:
            try:
                await self._attempt(name, data)
            except ImageStoreUnavailable:
                if self._lifecycle.is_draining or loop.time() >= deadline:
                    self._is_away = True
                    raise
                await self._lifecycle.pause(RETRY_S)
            else:
                self._is_away = False
                return

    async def until_available(self) -> None:
        """Wait while the store does not answer, if it did not when an image was given up, or until the server stops."""
        while self._is_away and not self._lifecycle.is_draining:
            if await self._images.is_available():
                self._is_away = False
                logger.info("the image store answers again")
            else:
                await self._lifecycle.pause(RETRY_S)

    async def _attempt(self, name: str, data: bytes) -> None:
        putting = asyncio.create_task(self._images.put(name, data))
        draining = asyncio.create_task(self._lifecycle.until_draining())
        try:
            await asyncio.wait({putting, draining}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({putting}, timeout=STOP_S)
            if not putting.done():
                raise ImageStoreUnavailable
            await putting
        finally:
            draining.cancel()
            putting.cancel()
