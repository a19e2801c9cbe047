"""Draining: pauses end, the dispatcher wakes, followers end."""

import asyncio

from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.signal import MemoryQueueSignal
from allaprima.service.lifecycle import Lifecycle
from tests.fakes import FakeClock
from tests.service.jobs.submitting import LIMIT_S


async def test_draining_ends_pauses_and_waits(clock: FakeClock) -> None:
    bus, signal = MemoryEventBus(clock, clock), MemoryQueueSignal()
    lifecycle = Lifecycle(bus, signal)

    async def follow() -> None:
        async with bus.follow("job") as events:
            assert [event async for event in events] == []

    waiting = asyncio.gather(lifecycle.pause(10 * LIMIT_S), signal.wait(), follow())
    await asyncio.sleep(0)
    assert not lifecycle.is_draining
    lifecycle.drain()
    await asyncio.wait_for(waiting, LIMIT_S)
    assert lifecycle.is_draining


async def test_pause_ends_after_its_duration(clock: FakeClock) -> None:
    lifecycle = Lifecycle(MemoryEventBus(clock, clock), MemoryQueueSignal())
    await asyncio.wait_for(lifecycle.pause(0.001), LIMIT_S)
    assert not lifecycle.is_draining
