"""The event bus of one process."""

import asyncio

from allaprima.domain.events import EventType
from allaprima.service.jobs.events import MemoryEventBus
from fakes import FakeClock


async def test_a_follower_that_is_no_watcher_keeps_waiting_after_the_watches_are_closed() -> None:
    bus = MemoryEventBus(FakeClock())

    async def follow() -> list[EventType]:
        async with bus.follow("a") as events:
            return [event.type async for event in events]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    bus.close_watches()
    # A follower that looped would block here for ever.
    await asyncio.sleep(0)
    bus.publish("a", EventType.SUCCEEDED)

    assert await following == [EventType.SUCCEEDED]
