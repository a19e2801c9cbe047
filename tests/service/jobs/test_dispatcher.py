"""The lease loop: order, limits, deadlines, crashes, restarts and faults."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.domain.models import ModelInfo
from allaprima.errors import StoreError
from allaprima.service.app import Service
from allaprima.service.jobs.queue_monitor import MAX_CRASHES
from tests.both_databases import on_sqlite_alone
from tests.databases import SQLITE
from tests.fakes import SKETCH, FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import LEASED, LIMIT_S, finish, rows, states, submit, write
from tests.waiting import eventually


async def test_jobs_of_key_reach_engine_in_submission_order(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    jobs = [await submit(service, owner) for _ in range(8)]
    for job in jobs:
        await finish(service, job)
    assert list(engine.requests) == [job.id for job in jobs]


async def test_engine_queues_one_job_ahead(service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path) -> None:
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


async def test_concurrent_engine_queues_one_batch_ahead(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine(max_concurrency=3)
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(8)]
        await engine.until_held(6)
        assert states(tmp_path) == ["running"] * 6 + ["queued"] * 2
        engine.release()
        for job in jobs:
            assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_lease_count_is_stable_after_every_kind_of_end(
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


async def test_missed_start_deadline_ends_job_without_other_traffic(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    for _ in range(LEASED):
        await submit(service, owner)
    await engine.until_held(LEASED)
    seconds, loop = [], asyncio.get_running_loop()
    # Several times: on a busy machine one may take long.
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


async def test_job_that_starts_in_time_has_no_deadline(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    job = await submit(service, owner, start_within_s=30)
    await engine.until_held()
    clock.now += 31
    engine.release()
    assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_deadline_passed_during_lease_ends_job(
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
    """Set the rows as a server leaves them that is killed with running jobs."""
    write(folder, "UPDATE jobs SET state = 'running', started_at = created_at, attempt = attempt + 1")


async def stop_while_a_job_runs(folder: Path, clock: FakeClock) -> None:
    """Start a server, wait until the queued job runs, and stop the server in order."""
    engine = FakeEngine()
    engine.hold()
    async with open_service(folder, engine, clock):
        await engine.until_held()


async def test_job_suspected_of_crash_runs_alone(tmp_path: Path, clock: FakeClock) -> None:
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


async def test_leased_job_waiting_to_run_alone_can_be_cancelled(tmp_path: Path, clock: FakeClock) -> None:
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
        await eventually(lambda: states(tmp_path) == ["running"] * 2)
        cancelling = asyncio.create_task(service.cancellation.cancel(jobs[1].account_id, jobs[1].id))
        await eventually(lambda: rows(tmp_path, "SELECT id FROM jobs WHERE cancel_asked_at IS NOT NULL"))
        again.release()
        assert (await cancelling).state is JobState.CANCELLED
        assert (await finish(service, jobs[0])).state is JobState.SUCCEEDED
    assert list(again.requests) == [jobs[0].id]


async def test_running_job_of_killed_server_is_finished_by_next(
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


async def test_job_that_ran_in_every_crash_fails(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
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


async def test_stop_requeues_jobs_held_by_engine(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
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


async def test_server_can_stop_at_any_point_of_job(tmp_path: Path, clock: FakeClock) -> None:
    """After any number of iterations of the event loop: each job is generated and charged once."""
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
    write(folder, "ALTER TABLE jobs RENAME TO lost")
    try:
        yield
    finally:
        write(folder, "ALTER TABLE lost RENAME TO jobs")


async def test_failing_database_refuses_jobs(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    with broken(tmp_path), pytest.raises(StoreError):
        await submit(service, owner)
    assert (await finish(service, await submit(service, owner))).state == JobState.SUCCEEDED


async def test_queued_jobs_are_leased_when_database_recovers(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.hold()
    jobs = [await submit(service, owner) for _ in range(LEASED + 1)]
    await engine.until_held(LEASED)
    with broken(tmp_path):
        engine.release()
        # The ends of the generated jobs and the lease of the next can't be written; the store logs each failure.
        await eventually(lambda: sum("the database failed" in record.message for record in caplog.records) > LEASED)
        assert len(engine.requests) == LEASED
    ends = [(await finish(service, job)).state for job in jobs]
    assert ends == [JobState.SUCCEEDED] * (LEASED + 1)


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("column", ["request", "options"])
@pytest.mark.parametrize(
    "stored", ['{"colour": "mauve"}', "null", "[]", "7", '{"store": "\xed"}', '{"store": "\\u0000"}']
)
async def test_unreadable_job_fails_and_next_succeeds(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, state: str, column: str, stored: str
) -> None:
    await fail_unreadable(tmp_path, engine, clock, state, column, stored)


@on_sqlite_alone
@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("column", ["request", "options"])
@pytest.mark.parametrize("stored", ['{"prompt": "a b', "", b"\xff\xfe", 7])
async def test_job_that_is_not_json_fails_and_next_succeeds(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, state: str, column: str, stored: object
) -> None:
    """PostgreSQL stores no such text in these columns."""
    await fail_unreadable(tmp_path, engine, clock, state, column, stored)


async def fail_unreadable(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, state: str, column: str, stored: object
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        unreadable, good = [await submit(service) for _ in range(2)]
    value = "CAST(? AS TEXT)" if isinstance(stored, bytes) else "?"
    write(tmp_path, f"UPDATE jobs SET {column} = {value} WHERE id = ?", stored, unreadable.id)  # noqa: S608 - a constant
    write(tmp_path, "UPDATE jobs SET state = ? WHERE id = ?", state, unreadable.id)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert (await finish(service, good)).state is JobState.SUCCEEDED
    found = rows(tmp_path, "SELECT state, error_message FROM jobs WHERE id = ?", unreadable.id)
    assert found == [("failed", "this version of the server can't read the stored request")]


class FaultyEngine(FakeEngine):
    """An engine that raises in the lease loop after it has started."""

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


async def test_fault_in_dispatcher_loop_ends_service(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(KeyError, match="a fault"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, FaultyEngine(), clock):
            await asyncio.Event().wait()


class UnstartableEngine(FakeEngine):
    def start(self) -> None:
        raise OSError("the device is gone")


async def test_engine_that_fails_to_start_ends_service(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(OSError, match="the device is gone"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, UnstartableEngine(), clock):
            raise AssertionError("the service runs")


@contextmanager
def refusing_updates(folder: Path, backend: str) -> Iterator[None]:
    """Make updates of jobs fail as by a violated constraint, while the context lasts."""
    if backend == SQLITE:
        write(folder, "CREATE TRIGGER refuse BEFORE UPDATE ON jobs BEGIN SELECT raise(FAIL, 'the row is locked'); END")
        yield
        return
    write(
        folder,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE integrity_constraint_violation USING message = 'the row is locked'; END $$",
    )
    write(folder, "CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()")
    try:
        yield
    finally:
        write(folder, "DROP FUNCTION refuse CASCADE")


async def test_failed_job_recovery_ends_service(tmp_path: Path, clock: FakeClock, backend: str) -> None:
    engine = FakeEngine()
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        await submit(service)
        await engine.until_held()
    write(tmp_path, "UPDATE jobs SET state = 'running', attempt = 1, started_at = 1")
    with refusing_updates(tmp_path, backend), pytest.raises(IntegrityError, match="the row is locked"):
        async with asyncio.timeout(LIMIT_S), open_service(tmp_path, FakeEngine(), clock):
            raise AssertionError("the service runs")
