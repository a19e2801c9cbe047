"""What is told of a job: in order, once, to its end, from any event on, and nothing to those who do not look."""

import asyncio
from typing import Any

import pytest
from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import Event, EventId, EventType
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions
from allaprima.errors import GenerationFailed, JobNotFound
from allaprima.service.app import Service
from allaprima.service.jobs.events import END
from fakes import FakeClock, FakeEngine, open_service

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=64, height=64, count=2)
LONG = 60


@pytest.fixture
async def owner(service: Service, key: str) -> ApiKey:
    return await service.keys.authenticate(key)


async def submit(service: Service, owner: ApiKey) -> Job:
    return await service.jobs.submit(owner, REQUEST, JobOptions(REQUEST.model), str(uuid7()))


async def events_of(service: Service, job: Job, after: EventId | None = None, limit: int = 10**6) -> list[Event]:
    """Read a job's events, to the end or to a number of them, as a client does that then goes away."""
    found: list[Event] = []
    async with asyncio.timeout(LONG):
        stream = await service.jobs.watch(job.account_id, job.id, after)
        async for event in stream:
            found.append(event)
            if len(found) == limit:
                break
        await stream.aclose()  # type: ignore[attr-defined]
    return found


async def watched(service: Service, owner: ApiKey, engine: FakeEngine) -> tuple[Job, "asyncio.Task[list[Event]]"]:
    """Submit a job that the engine holds, and watch it."""
    engine.hold()
    job = await submit(service, owner)
    watching = asyncio.create_task(events_of(service, job))
    await engine.until_held()
    while not service.jobs._events.is_watched(job.id):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    return job, watching


async def play(engine: FakeEngine, job: Job) -> None:
    """Let the engine work a job through, step by step."""
    for step in range(1, REQUEST.steps + 1):
        engine.step(job.id, step)
    engine.finish(job.id)
    await asyncio.sleep(0)


async def test_a_watched_job_tells_its_place_its_start_each_step_with_its_preview_and_its_end(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)
    await play(engine, job)
    events = await watching
    kinds = [event.type for event in events if event.type != EventType.QUEUED]
    assert kinds == [EventType.RUNNING, *[EventType.STEP, EventType.PREVIEW] * 4, EventType.SUCCEEDED]
    steps = [event.data for event in events if event.type == EventType.STEP]
    assert steps == [{"step": step, "steps": 4} for step in (1, 2, 3, 4)]
    preview = next(event.data for event in events if event.type == EventType.PREVIEW)
    assert (preview["step"], preview["steps"], len(preview["images"])) == (1, 4, 2)
    assert preview["images"][0]["url"].startswith("data:image/jpeg;base64,")
    assert preview["images"][0]["is_flagged"] is False


async def test_ids_rise_and_the_end_has_the_last(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    job, watching = await watched(service, owner, engine)
    await play(engine, job)
    ids = [event.id for event in await watching]
    assert ids == sorted(set(ids))
    assert ids[-1].number == END
    assert [EventId.parse(str(event_id)) for event_id in ids] == ids


async def test_a_watcher_that_comes_back_after_any_event_hears_the_rest_and_no_more(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)
    await play(engine, job)
    everything = await watching
    for place in range(len(everything)):
        rest = await events_of(service, job, everything[place].id)
        assert rest == everything[place + 1 :]
    assert await events_of(service, job) == everything


async def test_a_watcher_that_is_cut_off_at_every_event_misses_none(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    job, watching = await watched(service, owner, engine)

    async def nervous() -> list[Event]:
        heard: list[Event] = []
        while not heard or heard[-1].type != EventType.SUCCEEDED:
            heard += await events_of(service, job, heard[-1].id if heard else None, limit=1)
        return heard

    also = asyncio.create_task(nervous())
    for step in range(1, REQUEST.steps + 1):
        engine.step(job.id, step)
        await asyncio.sleep(0.01)
    engine.finish(job.id)
    assert await also == await watching


async def test_nobody_looks_and_no_preview_is_made(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    job = await submit(service, owner)
    await service.jobs.wait(job.id, LONG)
    kinds = [event.type for event in await events_of(service, job)]
    assert EventType.PREVIEW not in kinds
    assert kinds[-1] == EventType.SUCCEEDED


async def test_a_withheld_preview_is_not_sent(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.flagged = frozenset({0, 1})
    job, watching = await watched(service, owner, engine)
    await play(engine, job)
    previews = [event.data for event in await watching if event.type == EventType.PREVIEW]
    assert len(previews) == 4
    for preview in previews:
        assert [(image["url"], image["is_flagged"]) for image in preview["images"]] == [(None, True)] * 2


async def test_those_who_wait_hear_when_their_place_changes(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(5)]
    await engine.until_held(2)
    watching = asyncio.create_task(events_of(service, jobs[4]))
    await asyncio.sleep(0.05)
    for number in range(5):
        await engine.until_held(1)
        engine.finish(jobs[number].id)
        await asyncio.sleep(0.6)
    places = [event.data["queue_position"] for event in await watching if event.type == EventType.QUEUED]
    assert places == [3, 2, 1]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_every_end_is_told(service: Service, owner: ApiKey, engine: FakeEngine, end: str) -> None:
    job, watching = await watched(service, owner, engine)
    if end == "failed":
        engine.failure = GenerationFailed("no colours")
        engine.finish(job.id)
    else:
        await service.cancellation.cancel(owner.account_id, job.id)
    assert (await watching)[-1].type.value == end


async def test_the_end_of_a_job_that_nobody_remembers_is_still_told_once(tmp_path: Any, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        owner = (await service.keys.all())[0]
        job = await submit(service, owner)
        await service.jobs.wait(job.id, LONG)
        [*_, last] = await events_of(service, job)
    clock.now += 100
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        [end] = await events_of(service, job)
        assert (end.type, end.id.number) == (EventType.SUCCEEDED, last.id.number)
        assert end.id > last.id


async def test_after_a_restart_a_watcher_hears_of_the_new_attempt(tmp_path: Any, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        owner = (await service.keys.all())[0]
        job = await submit(service, owner)
        watching = asyncio.create_task(events_of(service, job))
        await engine.until_held()
        while not service.jobs._events.is_watched(job.id):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        engine.step(job.id, 1)
        await asyncio.sleep(0.05)
    # The stream ends with the server, without an end of the job.
    seen = await watching
    kinds = {event.type for event in seen}
    assert EventType.PREVIEW in kinds
    assert not kinds & {EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED}
    clock.now += 10
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        rest = await events_of(service, job, seen[-1].id)
        assert rest[-1].type == EventType.SUCCEEDED
        assert all(event.id > seen[-1].id for event in rest)


async def test_nobodys_events_are_anothers(service: Service, owner: ApiKey) -> None:
    job = await submit(service, owner)
    with pytest.raises(JobNotFound):
        await service.jobs.watch("stranger", job.id, None)


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.2.3", "a.b", "-1.2", "1.9999999999999999", "\u0661.2"])
def test_a_text_that_is_no_id_of_ours_is_none(text: str) -> None:
    assert EventId.parse(text) is None
