"""Keeps the server's clock right, so that nothing expires early and no deadline is forgotten.

With a data folder the clock is the system's, and follows its changes. With a shared database it is the database's: the
clocks of several machines differ, and one server's deadlines must hold for the others.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from allaprima.domain.clock import Clock, SteadyClock
from allaprima.errors import StoreError
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.clock import ClockRecord, ClockRepository

logger = logging.getLogger(__name__)

#: Seconds between two looks at the system's clock.
CHECK_S = 1.0
#: Smaller changes, in seconds, are adopted without moving deadlines.
SMALLEST_JUMP_S = 2.0
#: Seconds between two looks at the database's clock, and the longest answer from which it is adopted.
SYNC_S, SLOWEST_S = 10.0, 1.0


def elapsed() -> float:
    """Return the seconds of a clock that is never set and, where the system has one, counts while it is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def boot_id() -> str | None:
    """Return an id of the machine's last start, or None where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a task until the context exits."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Timekeeper:
    """Adopts changes of the system's clock together with the deadlines in the store."""

    def __init__(self, records: ClockRepository, clock: SteadyClock, lifecycle: Lifecycle, boot: str | None) -> None:
        self._records = records
        self._clock = clock
        self._lifecycle = lifecycle
        self._boot = boot

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at the clock until the context exits. A change since the last server ran is adopted first."""
        await self._start()
        async with _running(self._run()):
            yield

    async def _start(self) -> None:
        last = await self._records.find()
        if last is None:
            await self._records.save(self._record())
            return
        self._clock.shift = last.shift
        # The monotonic clocks of two starts of the machine can't be compared, so the system's time is believed.
        is_same_boot = self._boot is not None and self._boot == last.boot_id
        jump = self._clock.offset - last.offset if is_same_boot else 0.0
        if abs(jump) >= SMALLEST_JUMP_S:
            await self._shift(jump, self._clock.offset)
        elif last != self._record():
            await self._records.save(self._record())

    async def _run(self) -> None:
        while not self._lifecycle.is_draining:
            await self._lifecycle.pause(CHECK_S)
            # The store has logged the error; the next look retries.
            with suppress(StoreError):
                await self.check()

    async def check(self) -> None:
        """Adopt a change of the system's clock, if there is one. Raises `StoreError`; then nothing is adopted."""
        jump = self._clock.jump
        if abs(jump) < SMALLEST_JUMP_S:
            self._clock.adopt(jump)
            return
        offset = self._clock.offset + jump
        # Of the clock and the deadlines, the one that makes nothing expire moves first.
        if jump > 0:
            await self._shift(jump, offset)
            self._clock.adopt(jump)
            return
        self._clock.adopt(jump)
        try:
            await self._shift(jump, offset)
        except StoreError:
            self._clock.adopt(-jump)
            raise

    async def _shift(self, jump: float, offset: float) -> None:
        seconds = round(jump)
        record = ClockRecord(self._boot, offset, self._clock.shift + seconds)
        await self._records.shift_deadlines(seconds, record)
        self._clock.shift = record.shift
        logger.warning("the system's clock was set by %+d s; all deadlines were moved by as much", seconds)

    def _record(self) -> ClockRecord:
        return ClockRecord(self._boot, self._clock.offset, self._clock.shift)


class DatabaseTime(Protocol):
    """What `DatabaseTimekeeper` needs of `ClockRepository`."""

    async def find(self) -> ClockRecord | None:
        """See `ClockRepository`."""

    async def database_time(self) -> float:
        """See `ClockRepository`."""


class DatabaseTimekeeper:
    """Keeps the server's clock at the time of a database that several servers share."""

    def __init__(self, records: DatabaseTime, clock: SteadyClock, monotonic: Clock, lifecycle: Lifecycle) -> None:
        self._records = records
        self._clock = clock
        self._monotonic = monotonic
        self._lifecycle = lifecycle

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Adopt the database's time, and again every few seconds until the context exits. Raises `StoreError`."""
        if (last := await self._records.find()) is not None:
            # The changes of the clock of the data folder from which the database was filled.
            self._clock.shift = last.shift
        self._clock.adopt(await self._error())
        async with _running(self._run()):
            yield

    async def _run(self) -> None:
        while not self._lifecycle.is_draining:
            await self._lifecycle.pause(SYNC_S)
            # The store has logged the error; until the next look the monotonic clock is right enough.
            with suppress(StoreError):
                await self.check()

    async def check(self) -> None:
        """Adopt the database's time, unless its answer took long. Raises `StoreError`."""
        began = self._monotonic()
        error = await self._error()
        if self._monotonic() - began <= SLOWEST_S:
            self._clock.adopt(error)

    async def _error(self) -> float:
        """Return the seconds by which the database's clock is ahead, correct to half of the time of the answer."""
        before = self._clock()
        time = await self._records.database_time()
        return time - (before + self._clock()) / 2
