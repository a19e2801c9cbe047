"""Hints within one process: for a database that no other process has open, and where hints are off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allaprima.domain.hints import Hint, Reconnected
from allaprima.domain.ports import Hints


class MemoryHints(Hints):
    """Passes hints to its followers at once. It never loses a hint."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[Hint | Reconnected]] = set()

    def send(self, hint: Hint) -> None:
        """See `Hints`."""
        self.deliver(hint)

    def deliver(self, item: Hint | Reconnected) -> None:
        """Give an item to all followers. For use in the event loop only."""
        for queue in self._followers:
            queue.put_nowait(item)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Hint | Reconnected]]:
        """See `Hints`."""
        queue: asyncio.Queue[Hint | Reconnected] = asyncio.Queue()
        self._followers.add(queue)
        try:
            yield _items(queue)
        finally:
            self._followers.discard(queue)


async def _items(queue: asyncio.Queue[Hint | Reconnected]) -> AsyncIterator[Hint | Reconnected]:
    while True:
        yield await queue.get()
