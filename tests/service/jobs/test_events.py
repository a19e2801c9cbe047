"""Events of a job: in order, once each, resumable after any of them; and the event bus."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import LAST_NUMBER, Event, EventId, EventType, Started
from allaprima.domain.jobs import Job, QueuePosition
from allaprima.domain.progress import Preview, PreviewImage, StepDone
from allaprima.errors import GenerationFailed
from allaprima.service.app import Service
from allaprima.service.jobs.events import MAX_FINISHED, MAX_PREVIEW_BYTES, WATCH_GRACE_S, MemoryEventBus
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import LIMIT_S, REQUEST, finish, submit
from tests.waiting import eventually

TWO = REQUEST.changed(count=2)


async def events_of(service: Service, job: Job, after: EventId | None = None, limit: int = 10**6) -> list[Event]:
    """Read a job's events up to the end or to `limit`, then disconnect."""
    found: list[Event] = []
    stream = service.jobs.watch(job, after)
    assert isinstance(stream, AsyncGenerator)
    async with asyncio.timeout(LIMIT_S), aclosing(stream):
        async for event in stream:
            found.append(event)
            if len(found) == limit:
                break
    return found


async def watched(service: Service, owner: ApiKey, engine: FakeEngine) -> tuple[Job, "asyncio.Task[list[Event]]"]:
    """Submit a job that the engine holds, and watch it."""
    engine.hold()
    job = await submit(service, owner, TWO)
    watching = asyncio.create_task(events_of(service, job))
    await engine.until_held()
    await eventually(lambda: engine.wants_previews(job.id))
    return job, watching


def generate_steps(engine: FakeEngine, job: Job) -> None:
    """Let the engine generate a held job step by step."""
    for step in range(1, job.request.steps + 1):
        engine.step(job.id, step)
    engine.finish(job.id)


async def test_watcher_receives_start_steps_previews_and_end(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)
    generate_steps(engine, job)
    events = [event for event in await watching if event.type != EventType.QUEUED]
    kinds = [event.type for event in events]
    assert kinds == [EventType.RUNNING, *[EventType.STEP, EventType.PREVIEW] * 4, EventType.SUCCEEDED]
    assert events[0].data == Started(1)
    assert [event.data for event in events if event.type == EventType.STEP] == [StepDone(n, 4) for n in (1, 2, 3, 4)]
    preview = next(event.data for event in events if event.type == EventType.PREVIEW)
    assert isinstance(preview, Preview)
    assert (preview.step, preview.steps, len(preview.images)) == (1, 4, 2)
    assert preview.images[0].data.startswith(b"\xff\xd8")
    assert preview.images[0].is_flagged is False


async def test_event_ids_increase_up_to_end(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    job, watching = await watched(service, owner, engine)
    generate_steps(engine, job)
    ids = [event.id for event in await watching]
    assert ids == sorted(set(ids))
    assert (ids[-1].number, ids[-1].is_last) == (LAST_NUMBER, True)
    assert [EventId.parse(str(event_id)) for event_id in ids] == ids


async def test_resumed_watcher_receives_exactly_later_events(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)
    generate_steps(engine, job)
    events = await watching
    for position, event in enumerate(events):
        assert await events_of(service, job, event.id) == events[position + 1 :]
    assert await events_of(service, job) == events


async def test_watcher_disconnected_at_every_event_misses_none(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)

    async def reconnecting() -> list[Event]:
        received: list[Event] = []
        while not received or not received[-1].type.is_final:
            received += await events_of(service, job, received[-1].id if received else None, limit=1)
        return received

    other = asyncio.create_task(reconnecting())
    for step in range(1, TWO.steps + 1):
        engine.step(job.id, step)
        await asyncio.sleep(0)
    engine.finish(job.id)
    assert await other == await watching


async def test_preview_is_generated_only_for_watcher(service: Service, owner: ApiKey) -> None:
    job = await submit(service, owner, TWO)
    await finish(service, job)
    kinds = [event.type for event in await events_of(service, job)]
    assert EventType.PREVIEW not in kinds
    assert kinds[-1] == EventType.SUCCEEDED


async def test_withheld_preview_is_sent_without_its_image(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.flagged = frozenset({0, 1})
    job, watching = await watched(service, owner, engine)
    generate_steps(engine, job)
    previews = [event.data for event in await watching if event.type == EventType.PREVIEW]
    assert len(previews) == 4
    for preview in previews:
        assert isinstance(preview, Preview)
        assert [(image.data, image.is_flagged) for image in preview.images] == [(b"", True)] * 2


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_every_end_is_published(service: Service, owner: ApiKey, engine: FakeEngine, end: str) -> None:
    job, watching = await watched(service, owner, engine)
    if end == "failed":
        engine.failure = GenerationFailed("no colours")
        engine.finish(job.id)
    else:
        await service.cancellation.cancel(owner.account_id, job.id)
    assert (await watching)[-1].type.value == end


async def test_end_of_job_from_earlier_start_is_published_once(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        job = await submit(service)
        done = await finish(service, job)
        [*_, last] = await events_of(service, job)
    clock.now -= 400 * 86_400
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        for known in (job, done):
            [end] = await events_of(service, known)
            assert (end.type, end.id.number) == (EventType.SUCCEEDED, last.id.number)
            assert end.id == last.id


# The files of images have the system's time, so the fake clock must stay behind it: a sweep would remove them.
@pytest.mark.parametrize("passed_s", [10, -3600, -400 * 86_400, 200 * 86_400])
async def test_watcher_resumes_after_restart_with_new_attempt(
    tmp_path: Path, clock: FakeClock, passed_s: float
) -> None:
    engine = FakeEngine()
    async with open_service(tmp_path, engine, clock) as service:
        owner = (await service.keys.all())[0]
        job, watching = await watched(service, owner, engine)
        engine.step(job.id, 1)
        await asyncio.sleep(0)
    # The stream ends with the server, without a final event.
    seen = await watching
    assert EventType.PREVIEW in {event.type for event in seen}
    assert not any(event.type.is_final for event in seen)
    clock.now += passed_s
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        rest = await events_of(service, job, seen[-1].id)
        assert [rest[0].type, rest[-1].type] == [EventType.RUNNING, EventType.SUCCEEDED]
        assert all(event.id > seen[-1].id for event in rest)
        # A lease that was under way when the first server stopped may have been an attempt too.
        [attempt] = {event.id.attempt for event in rest}
        assert attempt > seen[-1].id.attempt


async def test_watch_after_store_is_closed_ends(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    assert not any(event.type.is_final for event in await events_of(service, job))


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.2.3", "a.b", "-1.2", "1.9999999999999999", "\u0661.2"])
def test_invalid_event_id_is_refused(text: str) -> None:
    assert EventId.parse(text) is None


# The bus ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bus(clock: FakeClock) -> MemoryEventBus:
    return MemoryEventBus(clock, clock)


def preview_of(size: int) -> Preview:
    return Preview(1, 4, (PreviewImage(b"x" * size, 0.0, is_flagged=False),))


async def kinds_of(events: AsyncIterator[Event]) -> list[EventType]:
    async with asyncio.timeout(LIMIT_S):
        return [event.type async for event in events]


async def test_events_after_end_are_dropped(bus: MemoryEventBus) -> None:
    bus.publish("job", EventType.CANCELLED)
    bus.publish("job", EventType.RUNNING, Started(1))
    async with bus.follow("job") as events:
        assert await kinds_of(events) == [EventType.CANCELLED]


async def test_ids_tell_attempt_and_step(bus: MemoryEventBus, clock: FakeClock) -> None:
    bus.publish("job", EventType.QUEUED, QueuePosition(2))
    clock.now -= 3600
    bus.publish("job", EventType.QUEUED, QueuePosition(1))
    bus.publish("job", EventType.RUNNING, Started(3))
    bus.publish("job", EventType.STEP, StepDone(1, 4))
    bus.publish("job", EventType.PREVIEW, preview_of(1))
    bus.publish("job", EventType.SUCCEEDED)
    milliseconds = int((clock.now + 3600) * 1000)
    async with bus.follow("job") as events:
        ids = [str(event.id) async for event in events]
    assert ids == [f"0.{milliseconds}", f"0.{milliseconds + 1}", "3.1", "3.2", "3.3", f"3.{LAST_NUMBER}"]


async def test_id_of_earlier_version_starts_stream_from_beginning(bus: MemoryEventBus) -> None:
    bus.publish("job", EventType.RUNNING, Started(1))
    bus.publish("job", EventType.SUCCEEDED)
    async with bus.follow("job", after=EventId(1_768_464_000, 5)) as events:
        assert await kinds_of(events) == [EventType.RUNNING, EventType.SUCCEEDED]


async def test_watcher_of_later_attempt_receives_end(bus: MemoryEventBus) -> None:
    bus.publish("job", EventType.RUNNING, Started(1))
    bus.publish("job", EventType.SUCCEEDED)
    async with bus.follow("job", after=EventId(7, 1)) as events:
        assert await kinds_of(events) == [EventType.SUCCEEDED]


async def test_finished_job_history_is_bounded_by_count(bus: MemoryEventBus) -> None:
    for number in range(MAX_FINISHED + 5):
        bus.publish(str(number), EventType.SUCCEEDED)
    assert [bus.last(str(number)) is None for number in (0, 4, 5, MAX_FINISHED + 4)] == [True, True, False, False]


async def test_finished_job_history_is_bounded_by_preview_bytes(bus: MemoryEventBus) -> None:
    for name in ("old", "middle", "new"):
        bus.publish(name, EventType.PREVIEW, preview_of(MAX_PREVIEW_BYTES // 2))
        bus.publish(name, EventType.SUCCEEDED)
    assert (bus.last("old"), bus.last("middle") is None, bus.last("new") is None) == (None, False, False)


async def test_followed_job_without_events_leaves_no_history(bus: MemoryEventBus) -> None:
    async with bus.follow("job"), bus.follow("job", previews=True):
        assert bus.watched == ["job"]
    assert (bus.watched, bus.last("job"), bus.is_watched("job")) == ([], None, False)


async def test_job_counts_as_watched_during_grace_period(bus: MemoryEventBus, clock: FakeClock) -> None:
    bus.publish("job", EventType.RUNNING, Started(1))
    async with bus.follow("job", previews=True):
        assert (bus.is_watched("job"), bus.watched) == (True, ["job"])
    assert (bus.is_watched("job"), bus.watched) == (True, [])
    clock.now += WATCH_GRACE_S
    assert not bus.is_watched("job")


async def test_follower_without_previews_is_not_watcher(bus: MemoryEventBus) -> None:
    bus.publish("job", EventType.RUNNING, Started(1))
    async with bus.follow("job"):
        assert (bus.is_watched("job"), bus.watched) == (False, [])
    assert not bus.is_watched("job")


async def test_closing_watches_ends_only_watchers(bus: MemoryEventBus) -> None:
    async with bus.follow("job") as waiting, bus.follow("job", previews=True) as watching:
        wait, watch = asyncio.create_task(kinds_of(waiting)), asyncio.create_task(kinds_of(watching))
        await asyncio.sleep(0)
        bus.close_watches()
        assert await watch == []
        assert not wait.done()
        bus.publish("job", EventType.SUCCEEDED)
        assert await wait == [EventType.SUCCEEDED]


async def test_closing_bus_ends_every_follower(bus: MemoryEventBus) -> None:
    async with bus.follow("job") as waiting, bus.follow("job", previews=True) as watching:
        both = asyncio.gather(kinds_of(waiting), kinds_of(watching))
        await asyncio.sleep(0)
        bus.close()
        assert await both == [[], []]
    async with bus.follow("job") as late:
        assert await kinds_of(late) == []


async def test_follower_of_dropped_job_receives_end(bus: MemoryEventBus) -> None:
    async with bus.follow("job") as events:
        bus.publish("job", EventType.SUCCEEDED)
        for number in range(MAX_FINISHED):
            bus.publish(str(number), EventType.SUCCEEDED)
        assert bus.last("job") is None
        assert await kinds_of(events) == [EventType.SUCCEEDED]
    assert bus.last("job") is None
