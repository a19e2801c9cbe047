"""The stop of a server, as its parts see it."""

import asyncio
from contextlib import suppress

from allaprima.domain.ports import EventBus, QueueSignal

#: Seconds after which a stopping server is expected to be back.
RESTART_S = 5.0


class Lifecycle:
    """Runs until `drain` is called."""

    def __init__(self, bus: EventBus, signal: QueueSignal) -> None:
        self._bus = bus
        self._signal = signal
        self._draining = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are accepted and leased."""
        return self._draining.is_set()

    def close_watches(self) -> None:
        """End every stream of events: the server is about to stop, and watchers resume with their last event."""
        self._bus.close_watches()

    def drain(self) -> None:
        """Accept and lease no more jobs, and wake all waiting clients; jobs that are not finished keep their rows."""
        self._draining.set()
        self._bus.close()
        self._signal.notify()

    async def pause(self, seconds: float) -> None:
        """Wait, or less when the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
