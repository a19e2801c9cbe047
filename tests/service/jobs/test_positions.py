"""Positions in the queue and their events."""

import asyncio

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import Event, EventType
from allaprima.domain.jobs import Priority, QueuePosition
from allaprima.service.app import Service
from allaprima.service.jobs.throughput import INITIAL_ESTIMATE_S
from tests.fakes import FakeClock, FakeEngine
from tests.service.jobs.submitting import LEASED, LIMIT_S, finish, submit


async def test_queued_jobs_have_consecutive_positions_and_times(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(LEASED + 3)]
    await engine.until_held(LEASED)
    found = [await service.jobs.positions.of(job) for job in jobs[LEASED:]]
    assert [position.queue_position for position in found] == [1, 2, 3]
    for position in found:
        assert position.predicted_start is not None
        assert position.predicted_finish == position.predicted_start + INITIAL_ESTIMATE_S
    starts = [position.predicted_start - clock.now for position in found if position.predicted_start]
    # The estimate of the two leased jobs may have decreased a little.
    assert all(
        abs(start - INITIAL_ESTIMATE_S * count) < INITIAL_ESTIMATE_S
        for start, count in zip(starts, (2, 3, 4), strict=True)
    )
    engine.release()


async def test_low_priority_job_is_behind_others(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    for _ in range(LEASED):
        await submit(service, owner)
    await engine.until_held(LEASED)
    low = await submit(service, owner, priority=Priority.LOW)
    normal = await submit(service, owner)
    found = [(await service.jobs.positions.of(job)).queue_position for job in (normal, low)]
    assert found == [1, 2]
    engine.release()


async def test_running_job_has_start_and_predicted_finish(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    position = await service.jobs.positions.of(await service.jobs.get(owner.account_id, job.id))
    assert (position.queue_position, position.predicted_start) == (None, clock.now)
    assert position.predicted_finish is not None
    assert clock.now < position.predicted_finish <= clock.now + INITIAL_ESTIMATE_S
    engine.release()


async def test_finished_job_has_no_position(service: Service, owner: ApiKey, clock: FakeClock) -> None:
    done = await finish(service, await submit(service, owner))
    assert await service.jobs.positions.of(done) == QueuePosition(None, clock.now, None)


async def test_watchers_receive_each_change_of_position(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(5)]
    await engine.until_held(LEASED)
    events: list[Event] = []
    async with asyncio.timeout(LIMIT_S):
        async for event in service.jobs.watch(jobs[4]):
            events.append(event)
            if event.type == EventType.QUEUED:
                # One job ends after each event, so that the next position differs.
                engine.finish(engine.held[0])
            else:
                engine.release()
    positions = [event.data.queue_position for event in events if isinstance(event.data, QueuePosition)]
    assert positions == [3, 2, 1]
    assert events[-1].type == EventType.SUCCEEDED


async def test_unchanged_position_is_published_once(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(LEASED + 1)]
    await engine.until_held(LEASED)
    watch = aiter(service.jobs.watch(jobs[-1]))
    first = await anext(watch)
    for _ in range(3):
        await service.jobs.positions.publish(jobs[-1].id)
    engine.release()
    events = [first, *[event async for event in watch]]
    assert [event.type for event in events if event.type == EventType.QUEUED] == [EventType.QUEUED]
