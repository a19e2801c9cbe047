"""The way of a job: stored before it is acknowledged, carried to one end, found again after any stop."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.domain.jobs import Job, JobOptions, JobState
from allaprima.errors import Draining, GenerationFailed, GenerationTimeout, JobNotFound, QueueFull, StoreError
from allaprima.service.app import Service
from allaprima.service.jobs.dispatcher import MAX_CRASHES
from allaprima.store.database import DATABASE_FILE
from allaprima.store.job_transitions import JobTransitions
from fakes import FakeClock, FakeEngine, open_service

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=64, height=64)
#: Jobs that the engine is given at a time.
AHEAD = 2
#: Seconds within which anything that will happen has happened, however slow the machine.
LONG = 60


def rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database file itself."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return raw.execute(statement).fetchall()


def states(folder: Path) -> list[str]:
    return [state for (state,) in rows(folder, "SELECT state FROM jobs ORDER BY created_at, id")]


@pytest.fixture
async def owner(service: Service, key: str) -> ApiKey:
    return await service.keys.authenticate(key)


async def submit(service: Service, owner: ApiKey | None = None, request: GenerationRequest = REQUEST) -> Job:
    if owner is None:
        owner = (await service.keys.all())[0]
    return await service.jobs.submit(owner, request, JobOptions(request.model), str(uuid7()))


async def finish(service: Service, job: Job) -> Job:
    return await service.jobs.wait(job.id, LONG)


# From request to picture --------------------------------------------------------------------------------------------


async def test_a_job_is_a_row_before_it_is_acknowledged(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    job = await submit(service, owner)
    found = rows(tmp_path, "SELECT id, account_id, key_id, request FROM jobs")
    assert [(row[0], row[1], row[2]) for row in found] == [(job.id, owner.account_id, owner.id)]
    assert GenerationRequest.from_json(json.loads(found[0][3])) == REQUEST
    assert states(tmp_path)[0] in ("queued", "running")


async def test_a_job_ends_with_its_pictures(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    request = REQUEST.changed(count=3, image_format=ImageFormat.WEBP)
    engine.flagged = frozenset({1})
    engine.warnings = ("the prompt was cut",)
    done = await finish(service, await submit(service, owner, request))
    assert (done.state, done.attempt, done.finished_at, done.request) == (JobState.SUCCEEDED, 1, clock.now, request)
    assert done.result == {
        "model": "allaprima/sketch",
        "revision": "5" * 40,
        "precision": "fp32",
        "credits": 0,
        "warnings": ["the prompt was cut"],
        "timings": {
            "inference": 0.25 + 4 * 0.125 + 0.5 + 0.0625,
            "text": 0.25,
            "steps": [0.125] * 4,
            "decode": 0.5,
            "safety": 0.0625,
            "encode": 0.03125,
        },
    }
    images = await service.images.of(done)
    painted = engine.paint(request).images
    assert [(image.place, image.seed, image.is_flagged, image.nsfw_score) for image in images] == [
        (0, 7, False, 0.01),
        (1, 8, True, 0.99),
        (2, 9, False, 0.01),
    ]
    for image, expected in zip(images, painted, strict=True):
        assert await service.jobs.read_object(image) == expected.data
        assert await service.jobs.read_image(image.id) == (image, expected.data)
        assert image.sha256 == hashlib.sha256(expected.data).hexdigest()
        assert image.size_bytes == len(expected.data)
        assert image.content_type == "image/webp"
        assert image.expires_at == clock.now + 7 * 86400
        assert (tmp_path / "images" / image.object_name).read_bytes() == expected.data


async def test_only_shown_pictures_are_charged_and_only_once(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.flagged = frozenset({0})
    job = await finish(service, await submit(service, owner, REQUEST.changed(count=4, width=512, height=1024)))
    assert rows(tmp_path, "SELECT job_id, key_id, model, images, megapixels, credits FROM usage") == [
        (job.id, owner.id, "allaprima/sketch", 3, 3 * 512 * 1024 / 1e6, 0)
    ]


async def test_a_finished_job_is_waited_for_in_no_time(service: Service, owner: ApiKey) -> None:
    job = await submit(service, owner)
    assert await finish(service, job) == await finish(service, job) == await service.jobs.wait(job.id, 0)


async def test_an_unknown_job_is_not_waited_for(service: Service) -> None:
    with pytest.raises(JobNotFound):
        await service.jobs.wait(str(uuid7()), LONG)


async def test_ids_sort_by_time(service: Service) -> None:
    ids = [str(uuid7()) for _ in range(100)]
    assert ids == sorted(ids)


async def test_a_picture_whose_time_is_over_is_gone(service: Service, owner: ApiKey, clock: FakeClock) -> None:
    job = await finish(service, await submit(service, owner))
    image = (await service.images.of(job))[0]
    clock.now = image.expires_at
    assert await service.jobs.read_image(image.id) is None
    with pytest.raises(GenerationFailed, match="no longer in the store"):
        await service.jobs.read_object(image)


# Many at once -------------------------------------------------------------------------------------------------------


async def test_jobs_reach_the_engine_in_the_order_they_came(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    jobs = [await submit(service, owner) for _ in range(8)]
    for job in jobs:
        await finish(service, job)
    assert list(engine.requests) == [job.id for job in jobs]


async def test_the_engine_is_given_no_more_than_it_and_the_next(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(5)]
    await engine.until_held(AHEAD)
    assert engine.held == (jobs[0].id, jobs[1].id)
    assert states(tmp_path) == ["running", "running", "queued", "queued", "queued"]
    engine.finish(jobs[0].id)
    await finish(service, jobs[0])
    await engine.until_held(AHEAD)
    assert engine.held == (jobs[1].id, jobs[2].id)
    engine.release()
    for job in jobs:
        assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_many_at_once_are_all_painted_exactly_once(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    async def paint(seed: int) -> Job:
        return await finish(service, await submit(service, owner, REQUEST.changed(seed=seed)))

    done = await asyncio.gather(*(paint(seed) for seed in range(60)))
    assert all(job.state is JobState.SUCCEEDED and job.attempt == 1 for job in done)
    assert [job.request.seed for job in done] == list(range(60))
    assert len(engine.requests) == 60
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM usage") == [(60, 60)]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM images") == [(60, 60)]
    for job in done:
        assert [image.seed for image in await service.images.of(job)] == [job.request.seed]


# The queue's limit --------------------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_with_the_time_to_come_back(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, engine_settings={"queue_size": 3}) as service:
        jobs = [await submit(service) for _ in range(3)]
        with pytest.raises(QueueFull) as caught:
            await submit(service)
        assert caught.value.retry_after_s > 0
        assert len(states(tmp_path)) == 3
        await engine.until_held()
        engine.finish(jobs[0].id)
        await finish(service, jobs[0])
        clock.now += caught.value.retry_after_s
        assert await submit(service)
        engine.release()


async def test_room_that_was_promised_is_kept_for_the_one_who_was_told(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, engine_settings={"queue_size": 3}) as service:
        jobs = [await submit(service) for _ in range(3)]
        with pytest.raises(QueueFull) as first:
            await submit(service)
        await engine.until_held()
        engine.finish(jobs[0].id)
        await finish(service, jobs[0])
        with pytest.raises(QueueFull) as second:
            await submit(service)
        clock.now += first.value.retry_after_s
        assert await submit(service)
        assert second.value.retry_after_s > 0
        engine.release()


async def test_the_queues_limit_holds_exactly_however_many_come_at_once(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, engine_settings={"queue_size": 3}) as service:
        ends = await asyncio.gather(*(submit(service) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(end, Job) for end in ends) == 3
        assert sum(isinstance(end, QueueFull) for end in ends) == 17
        assert len(states(tmp_path)) == 3


# Bad ends -----------------------------------------------------------------------------------------------------------


async def test_a_failure_of_the_engine_ends_the_job_with_the_reason(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    engine.failure = GenerationFailed("the colours ran out")
    failed = await finish(service, await submit(service, owner))
    assert (failed.state, failed.error_code, failed.error_message, failed.finished_at) == (
        JobState.FAILED,
        "generation_failed",
        "the colours ran out",
        clock.now,
    )
    assert await service.images.of(failed) == []
    assert rows(tmp_path, "SELECT state, images, credits FROM usage") == [("failed", 0, 0)]


async def test_after_a_failure_the_next_job_is_painted(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.failure = GenerationFailed()
    for _ in range(AHEAD + 1):
        assert (await finish(service, await submit(service, owner))).state is JobState.FAILED
    engine.failure = None
    assert (await finish(service, await submit(service, owner))).state is JobState.SUCCEEDED


async def test_a_cancelled_job_is_cancelled(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    engine.cancel(job.id)
    assert (await finish(service, job)).state is JobState.CANCELLED
    assert rows(tmp_path, "SELECT state, images, credits FROM usage") == [("cancelled", 0, 0)]


def block(folder: Path) -> None:
    folder.rmdir()
    folder.write_bytes(b"in the way")


def unblock(folder: Path) -> None:
    folder.unlink()
    folder.mkdir()


async def test_a_picture_that_can_not_be_written_fails_its_job_and_no_other(
    service: Service, owner: ApiKey, tmp_path: Path
) -> None:
    block(tmp_path / "images")
    for _ in range(AHEAD + 1):
        failed = await finish(service, await submit(service, owner))
        assert failed.state is JobState.FAILED
        assert failed.error_message is not None
        assert "could not be written" in failed.error_message
    unblock(tmp_path / "images")
    assert (await finish(service, await submit(service, owner))).state is JobState.SUCCEEDED
    assert rows(tmp_path, "SELECT count(*) FROM usage WHERE images > 0") == [(1,)]


# Waiting ------------------------------------------------------------------------------------------------------------


async def test_when_the_wait_is_over_the_job_goes_on(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    with pytest.raises(GenerationTimeout) as caught:
        await service.jobs.wait(job.id, 0.01)
    assert caught.value.job_id == job.id
    assert engine.held == (job.id,)
    engine.release()
    assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_many_may_wait_for_one_job_and_one_may_give_up(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    engine.hold()
    job = await submit(service, owner)
    patient = [asyncio.create_task(finish(service, job)) for _ in range(3)]
    with pytest.raises(GenerationTimeout):
        await service.jobs.wait(job.id, 0.01)
    await engine.until_held()
    engine.release()
    assert [done.state for done in await asyncio.gather(*patient)] == [JobState.SUCCEEDED] * 3


async def test_nothing_is_kept_of_those_who_waited(service: Service, owner: ApiKey) -> None:
    for _ in range(3):
        await finish(service, await submit(service, owner))
    assert not service.jobs._dispatcher._finished


# Stops and starts ---------------------------------------------------------------------------------------------------


async def test_what_the_engine_holds_when_the_server_stops_is_queued_again(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(4)]
        await engine.until_held(AHEAD)
    assert states(tmp_path) == ["queued"] * 4
    again = FakeEngine()
    async with open_service(tmp_path, again, clock) as service:
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED
    assert list(again.requests) == [job.id for job in jobs]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM usage") == [(4, 4)]


async def test_an_engine_that_paints_abreast_is_given_one_batch_more(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(abreast=3)
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(8)]
        await engine.until_held(6)
        assert states(tmp_path) == ["running"] * 6 + ["queued"] * 2
        engine.release()
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_what_may_have_taken_the_server_down_is_painted_alone(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(abreast=2)
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(5)]
        await engine.until_held(4)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE jobs SET crashes = 1 WHERE id IN (?, ?)", (jobs[1].id, jobs[2].id))
    again = FakeEngine(abreast=2)
    again.hold()
    async with open_service(tmp_path, again, clock) as service:
        for number in (0, 1, 2):
            await again.until_held()
            assert again.held == (jobs[number].id,)
            again.finish(jobs[number].id)
            await finish(service, jobs[number])
        await again.until_held(2)
        assert again.held == (jobs[3].id, jobs[4].id)
        again.release()
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_a_job_that_waits_to_be_painted_alone_can_be_cancelled(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(2)]
        await engine.until_held(AHEAD)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE jobs SET crashes = 1 WHERE id = ?", (jobs[1].id,))
    again = FakeEngine()
    again.hold()
    async with open_service(tmp_path, again, clock) as service:
        await again.until_held()
        while states(tmp_path) != ["running"] * 2:  # noqa: ASYNC110 - it lives in a file
            await asyncio.sleep(0.01)
        cancelling = asyncio.create_task(service.cancellation.cancel(jobs[1].account_id, jobs[1].id))
        while not rows(tmp_path, "SELECT id FROM jobs WHERE cancel_asked_at IS NOT NULL"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        again.release()
        assert (await cancelling).state is JobState.CANCELLED
        assert (await finish(service, jobs[0])).state is JobState.SUCCEEDED
    assert list(again.requests) == [jobs[0].id]


async def stop_while_it_runs(folder: Path, clock: FakeClock) -> None:
    """Start a server, let it begin the waiting job, and stop it in good order."""
    engine = FakeEngine()
    engine.hold()
    async with open_service(folder, engine, clock):
        await engine.until_held()


async def test_orderly_stops_never_use_up_a_jobs_attempts(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
        await engine.until_held()
    for _ in range(MAX_CRASHES - 1):
        await stop_while_it_runs(tmp_path, clock)
        crash(tmp_path)
        await stop_while_it_runs(tmp_path, clock)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        done = await finish(service, job)
    assert (done.state, done.crashes) == (JobState.SUCCEEDED, MAX_CRASHES - 1)
    assert done.attempt > MAX_CRASHES


async def test_whoever_waits_when_all_is_closed_hears_that_the_server_stops(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    with pytest.raises(Draining) as told:
        await service.jobs.wait(job.id, 1.0)
    assert told.value.retry_after_s > 0


async def test_those_who_wait_hear_that_the_server_stops(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(AHEAD + 2)]
        waiting = [asyncio.create_task(finish(service, job)) for job in jobs]
        await engine.until_held(AHEAD)
    ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), LONG)
    assert all(isinstance(end, Draining) and end.retry_after_s > 0 for end in ends)


async def test_those_whose_job_ends_while_the_server_stops_get_it(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    engine.hold()
    job = await submit(service, owner)
    waiting = asyncio.create_task(finish(service, job))
    await engine.until_held()
    engine.release()
    await asyncio.gather(*service.jobs._dispatcher._tasks)
    service.lifecycle.drain()
    assert (await waiting).state is JobState.SUCCEEDED


async def test_a_stopping_server_takes_no_jobs(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock) as service:
        owner = (await service.keys.all())[0]
    with pytest.raises(Draining):
        await submit(service, owner)
    assert states(tmp_path) == []


async def test_a_server_may_stop_at_any_moment_of_its_jobs(tmp_path: Path, clock: FakeClock) -> None:
    """However far the jobs are, each is found again, and is painted and charged once."""
    jobs = []
    for turns in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
        async with open_service(tmp_path, FakeEngine(), clock) as service:
            jobs += [await submit(service) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
        assert "running" not in states(tmp_path)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM usage") == [(len(jobs), len(jobs))]


def crash(folder: Path) -> None:
    """Leave the rows as a server does that dies with its jobs running."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE jobs SET state = 'running', started_at = created_at, attempt = attempt + 1")


async def test_a_job_that_ran_when_the_server_died_is_finished_by_the_next(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    crash(tmp_path)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        done = await finish(service, job)
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    assert rows(tmp_path, "SELECT count(*) FROM usage") == [(1,)]


async def test_a_job_that_took_every_server_down_is_not_tried_again(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    for _ in range(MAX_CRASHES - 1):
        crash(tmp_path)
        await stop_while_it_runs(tmp_path, clock)
    crash(tmp_path)
    last = FakeEngine()
    async with open_service(tmp_path, last, clock) as service:
        failed = await finish(service, job)
        assert (failed.state, failed.error_code) == (JobState.FAILED, "generation_failed")
        assert failed.error_message == f"the server died {MAX_CRASHES} times while it painted this"
    assert not last.requests


async def test_expired_pictures_are_swept_at_start(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock, store={"image_ttl_s": 60}) as service:
        image = (await service.images.of(await finish(service, await submit(service))))[0]
        assert (tmp_path / "images" / image.object_name).exists()
    clock.now += 60
    async with open_service(tmp_path, FakeEngine(), clock, store={"image_ttl_s": 60}) as service:
        fresh = await service.images.of(await finish(service, await submit(service)))
    assert {path.name for path in (tmp_path / "images").iterdir()} == {fresh[0].object_name}


@contextmanager
def broken(folder: Path) -> Iterator[None]:
    """Take the jobs table away while the context lasts."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        raw.execute("ALTER TABLE jobs RENAME TO lost")
        yield
        raw.execute("ALTER TABLE lost RENAME TO jobs")


async def test_a_failing_database_accepts_nothing(service: Service, tmp_path: Path) -> None:
    owner = (await service.keys.all())[0]
    with broken(tmp_path), pytest.raises(StoreError):
        await submit(service, owner)
    assert (await finish(service, await submit(service, owner))).state == JobState.SUCCEEDED


async def test_jobs_that_wait_are_leased_when_a_failing_database_works_again(
    service: Service, engine: FakeEngine, tmp_path: Path
) -> None:
    owner = (await service.keys.all())[0]
    engine.hold()
    waiting = [await submit(service, owner) for _ in range(AHEAD + 1)]
    await engine.until_held(AHEAD)
    with broken(tmp_path):
        engine.release()
        # Neither the ends of those that are painted nor the lease of the next can be written.
        await asyncio.sleep(0.3)
        assert len(engine.requests) == AHEAD
    ends = [(await finish(service, job)).state for job in waiting]
    assert ends == [JobState.SUCCEEDED] * (AHEAD + 1)


async def test_a_job_that_this_version_can_not_read_fails_and_the_next_is_painted(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        unreadable, good = [await submit(service) for _ in range(2)]
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE jobs SET request = ? WHERE id = ?", ('{"colour": "mauve"}', unreadable.id))
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert (await finish(service, good)).state is JobState.SUCCEEDED
    [(state, message)] = rows(tmp_path, f"SELECT state, error_message FROM jobs WHERE id = '{unreadable.id}'")  # noqa: S608
    assert (state, message) == ("failed", "the stored request can't be read by this version of the server")


async def test_a_fault_of_the_dispatcher_ends_the_service(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lease(*_: object) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(JobTransitions, "lease", lease)
    with pytest.raises(KeyError, match="a fault of ours"):
        async with asyncio.timeout(LONG), open_service(tmp_path, FakeEngine(), clock):
            await asyncio.Event().wait()
