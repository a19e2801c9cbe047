"""The lease loop: order, bounds, crashes, stops and starts."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.domain.models import ModelInfo
from allaprima.errors import StoreError
from allaprima.service.app import Service
from allaprima.service.jobs.dispatcher import MAX_CRASHES
from allaprima.store.sqlite import DATABASE_FILE
from fakes import SKETCH, FakeClock, FakeEngine, open_service
from service.jobs.submitting import LEASED, LIMIT_S, finish, rows, states, submit, until, write


async def test_jobs_of_a_key_reach_the_engine_in_the_order_of_submission(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    jobs = [await submit(service, owner) for _ in range(8)]
    for job in jobs:
        await finish(service, job)
    assert list(engine.requests) == [job.id for job in jobs]


async def test_the_engine_holds_one_job_more_than_it_generates(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(5)]
    await engine.until_held(LEASED)
    assert engine.held == (jobs[0].id, jobs[1].id)
    assert states(tmp_path) == ["running", "running", "queued", "queued", "queued"]
    engine.finish(jobs[0].id)
    await finish(service, jobs[0])
    await engine.until_held(LEASED)
    assert engine.held == (jobs[1].id, jobs[2].id)
    engine.release()
    for job in jobs:
        assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_an_engine_with_several_jobs_at_a_time_holds_twice_as_many(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(max_concurrency=3)
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(8)]
        await engine.until_held(6)
        assert states(tmp_path) == ["running"] * 6 + ["queued"] * 2
        engine.release()
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_the_number_of_leased_jobs_stays_the_same_after_many_ends_of_every_kind(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(12)]
    for number, job in enumerate(jobs[:9]):
        await engine.until_held(LEASED)
        if number % 2:
            await service.cancellation.cancel(owner.account_id, job.id)
        else:
            engine.finish(job.id)
            await finish(service, job)
    await engine.until_held(LEASED)
    await asyncio.sleep(0)
    assert engine.held == (jobs[9].id, jobs[10].id)
    engine.release()
    await finish(service, jobs[11])


# Start deadlines ----------------------------------------------------------------------------------------------------


async def test_a_missed_start_deadline_ends_the_job_within_a_second_without_other_traffic(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    for _ in range(LEASED):
        await submit(service, owner)
    await engine.until_held(LEASED)
    seconds, loop = [], asyncio.get_running_loop()
    # Several times, since a busy machine may take long for one.
    for _ in range(3):
        late = await submit(service, owner, start_within_s=30)
        waiting = asyncio.create_task(finish(service, late))
        await asyncio.sleep(0)
        clock.now += 31
        began = loop.time()
        done = await waiting
        seconds.append(loop.time() - began)
        assert (done.state, done.error_code) == (JobState.FAILED, "start_deadline_missed")
    assert min(seconds) < 1
    assert len(engine.requests) == LEASED
    engine.release()


async def test_a_job_that_starts_in_time_has_no_deadline_any_more(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    job = await submit(service, owner, start_within_s=30)
    await engine.until_held()
    clock.now += 31
    engine.release()
    assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_a_deadline_that_passes_before_the_lease_ends_the_job_on_the_way(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    held = [await submit(service, owner) for _ in range(LEASED)]
    late, good = await submit(service, owner, start_within_s=30), await submit(service, owner)
    await engine.until_held(LEASED)
    clock.now += 31
    engine.finish(held[0].id)
    assert (await finish(service, late)).error_code == "start_deadline_missed"
    engine.release()
    assert (await finish(service, good)).state is JobState.SUCCEEDED
    assert late.id not in engine.requests


# Crashes ------------------------------------------------------------------------------------------------------------


def crash(folder: Path) -> None:
    """Leave the rows as a server does that dies with its jobs running."""
    write(folder, "UPDATE jobs SET state = 'running', started_at = created_at, attempt = attempt + 1")


async def stop_while_a_job_runs(folder: Path, clock: FakeClock) -> None:
    """Start a server, let it start the queued job, and stop it in good order."""
    engine = FakeEngine()
    engine.hold()
    async with open_service(folder, engine, clock):
        await engine.until_held()


async def test_a_job_that_may_have_crashed_the_server_runs_alone(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(max_concurrency=2)
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(5)]
        await engine.until_held(4)
    write(tmp_path, "UPDATE jobs SET crashes = 1 WHERE id IN (?, ?)", jobs[1].id, jobs[2].id)
    again = FakeEngine(max_concurrency=2)
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


async def test_a_leased_job_that_waits_to_run_alone_can_be_cancelled(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(2)]
        await engine.until_held(LEASED)
    write(tmp_path, "UPDATE jobs SET crashes = 1 WHERE id = ?", jobs[1].id)
    again = FakeEngine()
    again.hold()
    async with open_service(tmp_path, again, clock) as service:
        await again.until_held()
        await until(lambda: states(tmp_path) == ["running"] * 2)
        cancelling = asyncio.create_task(service.cancellation.cancel(jobs[1].account_id, jobs[1].id))
        await until(lambda: rows(tmp_path, "SELECT id FROM jobs WHERE cancel_asked_at IS NOT NULL"))
        again.release()
        assert (await cancelling).state is JobState.CANCELLED
        assert (await finish(service, jobs[0])).state is JobState.SUCCEEDED
    assert list(again.requests) == [jobs[0].id]


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


async def test_a_job_that_ran_in_every_crash_of_the_server_fails(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    for _ in range(MAX_CRASHES - 1):
        crash(tmp_path)
        await stop_while_a_job_runs(tmp_path, clock)
    crash(tmp_path)
    last = FakeEngine()
    async with open_service(tmp_path, last, clock) as service:
        failed = await finish(service, job)
        assert (failed.state, failed.error_code) == (JobState.FAILED, "generation_failed")
        assert failed.error_message == f"the server crashed {MAX_CRASHES} times while it generated this job"
    assert not last.requests


async def test_orderly_stops_are_not_counted_as_crashes(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
        await engine.until_held()
    for _ in range(MAX_CRASHES - 1):
        await stop_while_a_job_runs(tmp_path, clock)
        crash(tmp_path)
        await stop_while_a_job_runs(tmp_path, clock)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        done = await finish(service, job)
    assert (done.state, done.crashes) == (JobState.SUCCEEDED, MAX_CRASHES - 1)
    assert done.attempt > MAX_CRASHES


# Stops and starts ---------------------------------------------------------------------------------------------------


async def test_jobs_that_the_engine_holds_when_the_server_stops_are_queued_again(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(4)]
        await engine.until_held(LEASED)
    assert states(tmp_path) == ["queued"] * 4
    again = FakeEngine()
    async with open_service(tmp_path, again, clock) as service:
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED
    assert list(again.requests) == [job.id for job in jobs]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM usage") == [(4, 4)]


async def test_a_server_may_stop_at_any_moment_of_its_jobs(tmp_path: Path, clock: FakeClock) -> None:
    """At any number of turns of the event loop: each job is found again, and generated and charged once."""
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


# Faults -------------------------------------------------------------------------------------------------------------


@contextmanager
def broken(folder: Path) -> Iterator[None]:
    """Remove the jobs table while the context lasts."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, timeout=LIMIT_S)) as raw:
        raw.execute("ALTER TABLE jobs RENAME TO lost")
        yield
        raw.execute("ALTER TABLE lost RENAME TO jobs")


async def test_a_failing_database_accepts_no_job(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    with broken(tmp_path), pytest.raises(StoreError):
        await submit(service, owner)
    assert (await finish(service, await submit(service, owner))).state == JobState.SUCCEEDED


async def test_queued_jobs_are_leased_when_a_failing_database_works_again(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(LEASED + 1)]
    await engine.until_held(LEASED)
    with broken(tmp_path):
        engine.release()
        # Neither the ends of the generated jobs nor the lease of the next can be written; the store logs each failure.
        await until(lambda: sum("the database failed" in record.message for record in caplog.records) > LEASED)
        assert len(engine.requests) == LEASED
    ends = [(await finish(service, job)).state for job in jobs]
    assert ends == [JobState.SUCCEEDED] * (LEASED + 1)


async def test_a_job_that_this_version_can_not_read_fails_and_the_next_succeeds(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        unreadable, good = [await submit(service) for _ in range(2)]
    write(tmp_path, "UPDATE jobs SET request = ? WHERE id = ?", '{"colour": "mauve"}', unreadable.id)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert (await finish(service, good)).state is JobState.SUCCEEDED
    found = rows(tmp_path, "SELECT state, error_message FROM jobs WHERE id = ?", unreadable.id)
    assert found == [("failed", "this version of the server can't read the stored request")]


class FaultyEngine(FakeEngine):
    """An engine whose list of slots can't be read once it has started: a fault in the lease loop."""

    has_started = False

    def start(self) -> None:
        self.has_started = True

    @property
    def max_concurrency(self) -> int:
        if self.has_started:
            raise KeyError("a fault")
        return 1

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return (SKETCH,)


async def test_a_fault_in_a_loop_of_the_dispatcher_ends_the_service(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(KeyError, match="a fault"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, FaultyEngine(), clock):
            await asyncio.Event().wait()


class UnstartableEngine(FakeEngine):
    def start(self) -> None:
        raise OSError("the device is gone")


async def test_a_service_whose_engine_can_not_start_ends_at_once(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(OSError, match="the device is gone"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, UnstartableEngine(), clock):
            raise AssertionError("the service runs")


async def test_a_service_that_can_not_recover_its_jobs_ends_at_once(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        await submit(service)
        await engine.until_held()
    refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON jobs BEGIN SELECT raise(FAIL, 'the row is locked'); END"
    write(tmp_path, "UPDATE jobs SET state = 'running', attempt = 1, started_at = 1, leased_until = 1")
    write(tmp_path, refuse)
    with pytest.raises(IntegrityError, match="the row is locked"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, FakeEngine(), clock):
            raise AssertionError("the service runs")
