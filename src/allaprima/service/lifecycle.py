"""The state of the server between its start and its stop."""

import asyncio
from contextlib import suppress

from allaprima.domain.ports import EventBus, QueueSignal

#: Expected seconds until a stopping server runs again.
RESTART_S = 5.0


class Lifecycle:
    """Tells the use cases when the server stops."""

    def __init__(self, bus: EventBus, signal: QueueSignal) -> None:
        self._bus = bus
        self._signal = signal
        self._draining = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether the server stops, and so neither accepts nor leases jobs."""
        return self._draining.is_set()

    def close_watches(self) -> None:
        """End every stream of events before the server stops. Watchers can resume after their last event."""
        self._bus.close_watches()

    def drain(self) -> None:
        """Stop accepting and leasing jobs, and end all waits. Unfinished jobs remain in the store."""
        self._draining.set()
        self._bus.close()
        self._signal.notify()

    async def until_draining(self) -> None:
        """Wait until the server stops."""
        await self._draining.wait()

    def wake(self) -> None:
        """Have the dispatcher look for queued jobs, since one was put back."""
        self._signal.notify()

    async def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
