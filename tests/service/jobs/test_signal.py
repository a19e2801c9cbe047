"""The signal that wakes the dispatcher."""

import asyncio

from allaprima.domain.hints import Hint, HintKind
from allaprima.service.jobs.signal import MemoryQueueSignal, SharedQueueSignal
from allaprima.store.memory_hints import MemoryHints
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


async def test_shared_signal_ends_a_wait_without_a_hint() -> None:
    await asyncio.wait_for(SharedQueueSignal(MemoryHints(), poll_s=0.001).wait(), LIMIT_S)


async def test_shared_signal_wakes_its_own_process_and_hints_to_the_others() -> None:
    hints = MemoryHints()
    signal = SharedQueueSignal(hints, poll_s=1e6)
    async with hints.follow() as sent:
        signal.hear()
        await asyncio.wait_for(signal.wait(), LIMIT_S)
        signal.notify()
        await asyncio.wait_for(signal.wait(), LIMIT_S)
        # What another process queued is not hinted again.
        assert await asyncio.wait_for(anext(sent), LIMIT_S) == Hint(HintKind.WORK)
        signal.notify()
        assert await asyncio.wait_for(anext(sent), LIMIT_S) == Hint(HintKind.WORK)
