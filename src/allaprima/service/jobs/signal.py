"""Wakes dispatchers when a job is queued."""

import asyncio
import random
from contextlib import suppress

from allaprima.domain.hints import Hint, HintKind
from allaprima.domain.ports import Hints, QueueSignal

#: Mean seconds between two looks at a queue to which other processes add jobs.
POLL_S = 1.0


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


class SharedQueueSignal(MemoryQueueSignal):
    """Wakes the dispatchers of all processes of a database by a hint. Each also looks at the queue every `POLL_S`."""

    def __init__(self, hints: Hints, poll_s: float = POLL_S) -> None:
        super().__init__()
        self._hints = hints
        self._poll_s = poll_s

    def notify(self) -> None:
        """See `QueueSignal`."""
        self.hear()
        self._hints.send(Hint(HintKind.WORK))

    def hear(self) -> None:
        """Wake the dispatcher of this process, since another process queued a job."""
        super().notify()

    async def wait(self, timeout_s: float | None = None) -> None:
        """See `QueueSignal`."""
        # With a random part, so that many idle processes do not look at the same time.
        await super().wait(self._poll_s * random.uniform(0.5, 1.5) if timeout_s is None else timeout_s)
