"""The signal that wakes the dispatcher."""

import asyncio

from allaprima.service.jobs.signal import MemoryQueueSignal
from tests.service.jobs.submitting import LIMIT_S


async def test_notification_before_wait_is_not_lost() -> None:
    signal = MemoryQueueSignal()
    signal.notify()
    await asyncio.wait_for(signal.wait(), LIMIT_S)


async def test_several_notifications_end_one_wait() -> None:
    signal = MemoryQueueSignal()
    signal.notify()
    signal.notify()
    await signal.wait()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    signal.notify()
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_wait_ends_after_its_timeout() -> None:
    await asyncio.wait_for(MemoryQueueSignal().wait(0.001), LIMIT_S)
