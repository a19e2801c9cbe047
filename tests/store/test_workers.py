"""Registrations of workers, their leases by the database's clock, and the jobs of those that have died."""

import asyncio
import math

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.domain.workers import Heartbeat
from allaprima.store import dialect
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions, LeaseOutcome
from allaprima.store.jobs import JobRepository
from allaprima.store.reaper import Reaped, Reaper
from allaprima.store.workers import LEASE_S, WorkerRepository
from tests.clock import NOW
from tests.store.backends import query, run
from tests.store.factories import new_job
from tests.store.reaping import WORKER, end_leases, register

pytestmark = pytest.mark.usefixtures("owner")


@pytest.fixture
def transitions(database: Database) -> JobTransitions:
    return JobTransitions(database)


async def renew(database: Database, worker_id: str = WORKER) -> Heartbeat:
    return await asyncio.to_thread(WorkerRepository(database).renew, worker_id)


async def lease_left(database: Database) -> float | None:
    """Return the seconds until the worker's lease ends; None: it has no end."""
    [(left,)] = await query(
        database, "SELECT leased_until - extract(epoch FROM clock_timestamp()) FROM workers WHERE id = :id", id=WORKER
    )
    return None if left is None else float(left)


async def test_heartbeat_knows_the_workers_running_jobs(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    await register(database, "other")
    jobs = [await transitions.admit(new_job(owner), 10) for _ in range(4)]
    for worker in (WORKER, WORKER, "other"):
        await transitions.lease(worker, NOW)
    await transitions.request_cancel(jobs[1].id, NOW)
    found = await renew(database)
    assert found == Heartbeat(
        is_registered=True, running=frozenset({jobs[0].id, jobs[1].id}), cancelled=frozenset({jobs[1].id})
    )
    assert await renew(database, "other") == Heartbeat(is_registered=True, running=frozenset({jobs[2].id}))


async def test_heartbeat_of_a_removed_worker_registers_nothing(database: Database) -> None:
    await WorkerRepository(database).remove(WORKER)
    assert await renew(database) == Heartbeat(is_registered=False)
    assert await query(database, "SELECT id FROM workers") == []


async def test_registration_whose_commit_was_not_answered_may_be_repeated(database: Database) -> None:
    await register(database)
    assert await query(database, "SELECT id, concurrency FROM workers") == [(WORKER, 1)]


async def test_lease_is_counted_by_the_databases_clock(database: Database) -> None:
    if not database.is_shared:
        assert await query(database, "SELECT leased_until FROM workers") == [(None,)]
        return
    assert LEASE_S - 5 < (await lease_left(database) or 0) <= LEASE_S
    await run(database, "UPDATE workers SET leased_until = leased_until - 5")
    assert (await renew(database)).is_registered
    assert LEASE_S - 5 < (await lease_left(database) or 0) <= LEASE_S


async def test_worker_whose_lease_is_over_leases_nothing(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    await transitions.admit(new_job(owner), 10)
    await end_leases(database)
    outcome = await transitions.lease(WORKER, NOW)
    # In SQLite a lease has no end.
    assert outcome.is_registered is not database.is_shared
    assert (outcome.job is None) is database.is_shared


async def test_jobs_of_a_living_worker_are_not_taken(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    job = await transitions.admit(new_job(owner), 10)
    await transitions.lease(WORKER, NOW)
    ephemeral = await transitions.admit(new_job(owner, store=False), 10, waits_at=WORKER)
    await register(database, "reaper")
    reaped = await Reaper(database).reap("reaper", 3, NOW)
    states = [(await JobRepository(database).get(one.id)).state for one in (job, ephemeral)]
    if database.is_shared:
        assert (reaped, states) == (Reaped(), [JobState.RUNNING, JobState.QUEUED])
    else:
        # The lock of the data folder proves that the other worker is dead.
        assert (reaped.requeued, states) == (1, [JobState.QUEUED, JobState.CANCELLED])


async def test_running_job_without_a_worker_is_requeued(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    job = await transitions.admit(new_job(owner), 10)
    await transitions.lease(WORKER, NOW)
    # As an earlier version left it.
    await run(database, "UPDATE jobs SET worker_id = NULL")
    assert await Reaper(database).reap(WORKER, 3, NOW) == Reaped(requeued=1)
    found = await JobRepository(database).get(job.id)
    assert (found.state, found.crashes, found.attempt) == (JobState.QUEUED, 1, 1)


async def test_late_result_of_a_dead_worker_is_refused(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    await transitions.admit(new_job(owner), 10)
    late = (await transitions.lease(WORKER, NOW)).job
    assert late is not None
    await end_leases(database)
    await register(database, "reaper")
    assert (await Reaper(database).reap("reaper", 3, NOW)).requeued == 1
    assert await transitions.lease(WORKER, NOW) == LeaseOutcome(is_registered=False)
    again = (await transitions.lease("reaper", NOW)).job
    assert again is not None
    assert (again.id, again.attempt) == (late.id, 2)
    assert not await transitions.cancel(late, NOW)
    assert (await JobRepository(database).get(late.id)).state is JobState.RUNNING


async def test_no_worker_is_taken_for_dead_just_after_the_server_started(
    database: Database, monkeypatch: pytest.MonkeyPatch, transitions: JobTransitions, owner: ApiKey
) -> None:
    if not database.is_shared:
        assert await database.read(dialect.uptime) == math.inf
        return
    await transitions.admit(new_job(owner), 10)
    await transitions.lease(WORKER, NOW)
    await register(database, "reaper")
    await end_leases(database)
    monkeypatch.setattr("allaprima.store.dialect.uptime", lambda _connection: LEASE_S - 1)
    assert await Reaper(database).reap("reaper", 3, NOW) == Reaped()


async def test_start_of_a_server_takes_no_job_of_a_registered_worker(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    held, lost = [await transitions.admit(new_job(owner), 10) for _ in range(2)]
    for _ in range(2):
        await transitions.lease(WORKER, NOW)
    await run(database, "UPDATE jobs SET worker_id = 'removed' WHERE id = :id", id=lost.id)
    await end_leases(database)
    await register(database, "new")
    assert await Reaper(database).reap("new", 3, NOW, judges=False) == Reaped(requeued=1)
    states = [(await JobRepository(database).get(job.id)).state for job in (held, lost)]
    assert states == [JobState.RUNNING, JobState.QUEUED]


async def test_lease_that_is_over_is_renewed_while_the_worker_is_registered(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    job = await transitions.admit(new_job(owner), 10)
    await end_leases(database)
    assert (await renew(database)).is_registered
    leased = (await transitions.lease(WORKER, NOW)).job
    assert leased is not None
    assert leased.id == job.id
