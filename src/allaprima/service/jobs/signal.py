"""Wakes the dispatcher of the same process when a job is queued."""

import asyncio
from contextlib import suppress

from allaprima.domain.ports import QueueSignal


class MemoryQueueSignal(QueueSignal):
    """An event in the memory of one process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """See `QueueSignal`."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> None:
        """See `QueueSignal`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        self._event.clear()
