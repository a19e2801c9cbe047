"""Waits for a condition that no event reports, with a deadline: one of a file, a process or another thread."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Longest wait for a start, a stop, a command or an image, in seconds. It allows for a busy machine.
LIMIT_S = 240


def until(found: Callable[[], T | None], what: str, *, every_s: float = 0.05, limit_s: float = LIMIT_S) -> T:
    """Poll until `found` returns a value other than None, and return it; fail after `limit_s`.

    what: named in the failure.
    """
    deadline = time.monotonic() + limit_s
    while (value := found()) is None:
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(every_s)
    return value


async def eventually(condition: Callable[[], object], *, every_s: float = 0.005, limit_s: float = LIMIT_S) -> None:
    """Poll until a condition holds, while other tasks of the event loop run; raise TimeoutError after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(every_s)
