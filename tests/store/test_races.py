"""The races of `tests/store/races.py`, each with many concurrent transactions on every backend."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, update

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, LimitPeriod, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobState, Priority
from allaprima.domain.ports import ObjectStore
from allaprima.errors import (
    GenerationFailed,
    ImageNotFound,
    JobNotFound,
    KeyLimitReached,
    QueueFull,
    StarLimitReached,
    Unauthorized,
)
from allaprima.store.accounts import AccountRepository
from allaprima.store.charges import BUCKET_S
from allaprima.store.database import Database
from allaprima.store.idempotency import RETENTION_S
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions, LeaseOutcome
from allaprima.store.keys import KeyRepository
from allaprima.store.outbox import SEND_LEASE_S, DeliveryLimits, Outbox
from allaprima.store.reaper import Reaped, Reaper
from allaprima.store.schema import jobs
from allaprima.store.workers import lock_registered
from tests.clock import NOW
from tests.store.backends import count, query, run
from tests.store.factories import REQUEST, new_entry, new_image, new_job, new_outcome
from tests.store.reaping import WORKER, end_leases, register
from tests.waiting import LIMIT_S

#: Number of concurrent transactions.
WRITERS = 32
CLAIM = IdempotencyClaim("once", "fingerprint")
URL = "https://hooks.example/a"


@pytest.fixture
def transitions(database: Database) -> JobTransitions:
    return JobTransitions(database)


@pytest.fixture
def keys(database: Database) -> KeyRepository:
    return KeyRepository(database)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


async def run_concurrently(calls: Iterable[Awaitable[Any]], *expected: type[Exception]) -> list[Any]:
    """Run all calls concurrently; return the result of each, or the class of an expected error."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, expected):
            raise one
    return [type(one) if isinstance(one, Exception) else one for one in found]


def interleaved(*groups: Iterable[Coroutine[Any, Any, Any]]) -> list[Coroutine[Any, Any, Any]]:
    """Return the calls of all groups in alternation."""
    return [call for calls in zip(*groups, strict=True) for call in calls]


async def leased(transitions: JobTransitions, owner: ApiKey, number: int = WRITERS, **fields: Any) -> list[Job]:
    """Admit and lease some jobs."""
    for _ in range(number):
        await transitions.admit(new_job(owner, **fields), queue_size=1000)
    found = [(await transitions.lease(WORKER, NOW)).job for _ in range(number)]
    return [job for job in found if job is not None]


@pytest.fixture
async def bucket(database: Database, owner: ApiKey) -> None:
    """A usage bucket for the jobs of the test, so that the race of the first insert affects only its own test."""
    start = int(NOW // BUCKET_S * BUCKET_S)
    await run(
        database,
        "INSERT INTO usage_buckets VALUES (:account, :start, :key, :model, 0, 0, 0, 0, 0, 0, 0)",
        account=owner.account_id,
        start=start,
        key=owner.id,
        model=REQUEST.model,
    )


# Admission ----------------------------------------------------------------------------------------------------------


async def test_queue_holds_no_more_jobs_than_its_size(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    found = await run_concurrently((transitions.admit(new_job(owner), 8) for _ in range(WRITERS)), QueueFull)
    assert found.count(QueueFull) == WRITERS - 8
    assert await count(database, "jobs") == 8


async def test_jobs_of_key_have_distinct_turns(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    await run_concurrently(transitions.admit(new_job(owner, predicted_s=1.0), 1000) for _ in range(WRITERS))
    turns = [turn for (turn,) in await query(database, "SELECT turn FROM jobs ORDER BY turn")]
    assert turns == [float(number) for number in range(1, WRITERS + 1)]


async def test_disabled_key_admits_no_job(
    database: Database, transitions: JobTransitions, keys: KeyRepository, owner: ApiKey
) -> None:
    async def disable() -> str:
        await keys.change(owner.account_id, owner.prefix, {"is_disabled": True}, NOW)
        [(jobs,)] = await query(database, "SELECT count(*) FROM jobs")
        return f"{jobs} jobs"

    def admissions() -> list[Coroutine[Any, Any, Job]]:
        return [transitions.admit(new_job(owner), 1000) for _ in range(WRITERS)]

    found = await run_concurrently([*admissions(), disable(), *admissions()], Unauthorized)
    admitted = sum(isinstance(one, Job) for one in found)
    assert found[WRITERS] == f"{admitted} jobs"
    assert found.count(Unauthorized) == 2 * WRITERS - admitted
    assert await count(database, "jobs") == admitted


async def test_key_holds_no_more_than_its_limit(
    database: Database, transitions: JobTransitions, keys: KeyRepository, owner: ApiKey
) -> None:
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    limit = {"limit": SpendLimit(LimitPeriod.NO_RESET, 10)}
    await keys.change(owner.account_id, owner.prefix, limit, NOW)
    found = await run_concurrently(
        (transitions.admit(new_job(owner, held=1), 1000) for _ in range(WRITERS)), KeyLimitReached
    )
    assert found.count(KeyLimitReached) == WRITERS - 10
    assert await query(database, "SELECT held FROM api_keys UNION ALL SELECT held FROM accounts") == [(10,), (10,)]


async def test_replayed_requests_create_one_job(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    jobs = await run_concurrently(transitions.admit(new_job(owner, held=1), 1000, CLAIM) for _ in range(WRITERS))
    assert len({job.id for job in jobs}) == 1
    assert await count(database, "jobs") == await count(database, "idempotency_records") == 1
    assert await query(database, "SELECT held FROM accounts") == [(1,)]


async def test_expired_record_is_replaced_once(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    old = await transitions.admit(new_job(owner), 1000, CLAIM)
    later = NOW + RETENTION_S
    jobs = await run_concurrently(
        transitions.admit(new_job(owner, created_at=later), 1000, CLAIM) for _ in range(WRITERS)
    )
    [new] = {job.id for job in jobs}
    assert new != old.id
    assert await query(database, "SELECT resource_id FROM idempotency_records") == [(new,)]
    assert await count(database, "jobs") == 2


# Leases and ends ----------------------------------------------------------------------------------------------------


async def test_every_job_is_leased_once(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    ranks = [Priority.HIGH, Priority.NORMAL]
    admitted = [
        await transitions.admit(new_job(owner, predicted_s=1.0, priority=ranks[number % 3 == 0]), 1000)
        for number in range(WRITERS)
    ]
    found = await run_concurrently(transitions.lease(WORKER, NOW) for _ in range(WRITERS + 8))
    jobs = [one.job for one in found if one.job is not None]
    assert sorted(job.id for job in jobs) == sorted(job.id for job in admitted)
    assert {job.attempt for job in jobs} == {1}
    # Leases swap turns and lose none.
    turns = [turn for (turn,) in await query(database, "SELECT turn FROM jobs ORDER BY turn")]
    assert turns == [float(number) for number in range(1, WRITERS + 1)]


async def test_usage_bucket_counts_every_job(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    jobs = await leased(transitions, owner)
    ends = await run_concurrently(transitions.succeed(job, NOW, new_outcome(new_image(job))) for job in jobs)
    assert ends == [True] * WRITERS
    assert await query(database, "SELECT succeeded, charged, images FROM usage_buckets") == [(WRITERS,) * 3]


@pytest.mark.usefixtures("bucket")
async def test_no_charge_of_key_is_lost(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    jobs = await leased(transitions, owner, held=5)
    ends = (transitions.succeed(job, NOW, new_outcome(new_image(job), credits_=3)) for job in jobs)
    more = (transitions.admit(new_job(owner, held=2), 1000) for _ in jobs)
    await run_concurrently(interleaved(ends, more))
    spent, held = 3 * WRITERS, 2 * WRITERS
    assert await query(database, "SELECT spent, month_spent, held FROM api_keys") == [(spent, spent, held)]
    assert await query(database, "SELECT balance, held FROM accounts") == [(1000 - spent, held)]


async def test_request_has_one_cached_result(
    database: Database, transitions: JobTransitions, keys: KeyRepository, owner: ApiKey
) -> None:
    # Jobs of different keys without images share no other row that both would lock.
    owners = [replace(owner, id=f"key-{number}", prefix=f"p{number}") for number in range(WRITERS)]
    for number, one in enumerate(owners):
        await keys.add(one, f"hash-{number}")
    jobs = [job for one in owners for job in await leased(transitions, one, 1)]
    await run_concurrently(transitions.succeed(job, NOW, new_outcome(fingerprint="same")) for job in jobs)
    [(job_id,)] = await query(database, "SELECT job_id FROM cached_results")
    assert job_id in {job.id for job in jobs}
    assert await query(database, "SELECT DISTINCT state FROM jobs") == [("succeeded",)]


@pytest.mark.usefixtures("bucket")
async def test_cancel_request_reaches_job_during_lease(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    jobs = [await transitions.admit(new_job(owner), 1000) for _ in range(WRITERS)]
    found = await run_concurrently(
        interleaved(
            (transitions.lease(WORKER, NOW) for _ in jobs),
            (transitions.request_cancel(job.id, NOW) for job in reversed(jobs)),
        )
    )
    states = dict(await query(database, "SELECT id, state FROM jobs"))
    # Each answer is the job's state: queued jobs are cancelled, running jobs have a cancel request.
    assert {job.id: job.state for job in found[1::2]} == states
    assert set(states.values()) == {JobState.CANCELLED, JobState.RUNNING}
    assert await query(database, "SELECT count(*) FROM jobs WHERE cancel_asked_at IS NULL") == [(0,)]
    assert await count(database, "usage") == list(states.values()).count(JobState.CANCELLED)
    assert not {one.job.id for one in found[::2] if one.job} - {
        id_ for id_, state in states.items() if state == "running"
    }


async def test_job_is_removed_once(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    [job] = await leased(transitions, owner, 1)
    image = new_image(job)
    await transitions.succeed(job, NOW, new_outcome(image, fingerprint="same"))
    found = await run_concurrently((transitions.remove(job.id) for _ in range(WRITERS)), JobNotFound)
    assert found.count(JobNotFound) == WRITERS - 1
    assert [image.object_name] in found
    assert await count(database, "jobs") == await count(database, "images") == 0


@pytest.mark.usefixtures("bucket")
async def test_missed_start_is_reported_once(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    jobs = [await transitions.admit(new_job(owner, start_by=NOW), 1000) for _ in range(WRITERS)]
    found = await run_concurrently(
        interleaved(
            (transitions.fail_missed_starts(NOW) for _ in range(8)),
            (transitions.lease(WORKER, NOW) for _ in range(8)),
        )
    )
    failed = Counter(job_id for ids in found[::2] for job_id in ids)
    running = Counter(one.job.id for one in found[1::2] if one.job)
    assert failed + running == Counter(job.id for job in jobs)
    assert await count(database, "usage") == failed.total()


async def test_worker_taken_for_dead_leases_no_job(
    database: Database, transitions: JobTransitions, owner: ApiKey
) -> None:
    job = await transitions.admit(new_job(owner), 1000)
    await register(database, "reaper")
    has_lease, goes_on = threading.Event(), threading.Event()

    def lease(connection: Connection) -> None:
        assert lock_registered(connection, WORKER)
        has_lease.set()
        goes_on.wait(LIMIT_S)
        connection.execute(update(jobs).values(state="running", attempt=1, worker_id=WORKER))

    leasing = asyncio.create_task(database.write(lease))
    await asyncio.to_thread(has_lease.wait, LIMIT_S)
    if database.is_shared:
        await end_leases(database)
        # The worker's lease is over, but it is leasing.
        assert await Reaper(database).reap("reaper", 3, NOW) == Reaped()
    goes_on.set()
    await leasing
    assert await query(database, "SELECT id FROM workers ORDER BY id") == [("reaper",), (WORKER,)]
    assert await Reaper(database).reap("reaper", 3, NOW) == Reaped(requeued=1)
    assert await transitions.lease(WORKER, NOW) == LeaseOutcome(is_registered=False)
    assert await query(database, "SELECT id, state FROM jobs") == [(job.id, "queued")]


async def test_crash_is_counted_once(database: Database, transitions: JobTransitions, owner: ApiKey) -> None:
    await register(database, concurrency=8)
    await leased(transitions, owner, 8)
    judges = [await register(database, f"reaper-{number}") for number in range(WRITERS)]
    await end_leases(database)
    reaper = Reaper(database)
    found = await run_concurrently(reaper.reap(judge, 3, NOW) for judge in judges)
    assert sum(reaped.requeued for reaped in found) == 8
    assert await query(database, "SELECT DISTINCT state, crashes FROM jobs") == [("queued", 1)]


async def test_unreadable_job_ends_once(
    database: Database, transitions: JobTransitions, owner: ApiKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "allaprima.store.postgres")
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    for _ in range(8):
        await transitions.admit(new_job(owner, held=5, start_by=NOW), 1000)
    await run(database, "UPDATE jobs SET request = :request", request='{"model": "of a later version"}')
    found = await run_concurrently(
        interleaved(
            (transitions.lease(WORKER, NOW) for _ in range(8)),
            (transitions.fail_missed_starts(NOW) for _ in range(8)),
        )
    )
    ended = [one.ended[0] for one in found[::2] if one.ended] + [job_id for ids in found[1::2] for job_id in ids]
    assert sorted(ended) == sorted(job_id for (job_id,) in await query(database, "SELECT id FROM jobs"))
    assert "deadlock" not in caplog.text
    assert await count(database, "usage") == 8
    assert await query(database, "SELECT held FROM api_keys UNION ALL SELECT held FROM accounts") == [(0,), (0,)]


# Keys and accounts --------------------------------------------------------------------------------------------------


async def test_key_prefix_is_stored_once(database: Database, keys: KeyRepository, owner: ApiKey) -> None:
    twins = [
        ApiKey(id=f"twin-{number}", account_id=owner.account_id, prefix="taken", created_at=NOW)
        for number in range(WRITERS)
    ]
    found = await run_concurrently(keys.add(twin, f"hash-{twin.id}") for twin in twins)
    assert found.count(None) == WRITERS - 1
    for number in range(WRITERS):
        await keys.add(
            ApiKey(id=f"key-{number}", account_id=owner.account_id, prefix=f"p{number}", created_at=NOW), f"h{number}"
        )
    rotations = [KeyRotation(owner.account_id, f"p{number}", "new", NOW) for number in range(WRITERS)]
    found = await run_concurrently(keys.rotate(rotation, f"new-{rotation.prefix}") for rotation in rotations)
    assert found.count(None) == WRITERS - 1
    assert await query(database, "SELECT count(*) FROM api_keys WHERE prefix IN ('new', 'taken')") == [(2,)]


@pytest.mark.usefixtures("bucket")
async def test_new_limit_counts_every_charge(
    database: Database, transitions: JobTransitions, keys: KeyRepository, owner: ApiKey
) -> None:
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    jobs = await leased(transitions, owner, held=5)
    limit = {"limit": SpendLimit(LimitPeriod.DAY, 500)}
    await run_concurrently(
        interleaved(
            (transitions.succeed(job, NOW, new_outcome(new_image(job), credits_=3)) for job in jobs),
            (keys.change(owner.account_id, owner.prefix, limit, NOW) for _ in jobs),
        )
    )
    assert await query(database, "SELECT spent, held FROM api_keys") == [(3 * WRITERS, 0)]


async def test_empty_store_gets_one_account(database: Database) -> None:
    accounts = AccountRepository(database)
    found = await run_concurrently(accounts.first(Account(f"a{number}", "default", NOW)) for number in range(WRITERS))
    assert len({account.id for account in found}) == await count(database, "accounts") == 1


async def test_account_names_are_unique(database: Database) -> None:
    accounts = AccountRepository(database)
    found = await run_concurrently(accounts.add(Account(f"a{number}", "acme", NOW)) for number in range(WRITERS))
    assert Counter(found) == {True: 1, False: WRITERS - 1}
    assert await count(database, "accounts") == 1


# Webhooks -----------------------------------------------------------------------------------------------------------


async def test_webhook_url_has_one_endpoint(
    database: Database, transitions: JobTransitions, outbox: Outbox, owner: ApiKey
) -> None:
    jobs = [new_job(owner, webhook_url=URL) for _ in range(WRITERS)]
    await run_concurrently(transitions.admit(job, 1000) for job in jobs)
    assert await count(database, "jobs") == WRITERS
    assert await count(database, "webhook_endpoints") == len(await outbox.secrets(owner.account_id, NOW)) == 1


LIMITS = DeliveryLimits(total=128, per_account=128, per_endpoint=128)


async def with_deliveries(transitions: JobTransitions, owner: ApiKey, number: int) -> None:
    """End jobs with webhooks, so that their deliveries are due."""
    for job in await leased(transitions, owner, number, webhook_url=URL):
        assert await transitions.fail(job, NOW, GenerationFailed("no"))


async def test_delivery_is_leased_once(
    database: Database, transitions: JobTransitions, outbox: Outbox, owner: ApiKey
) -> None:
    await with_deliveries(transitions, owner, 8)
    if not database.is_shared:
        # The only process of a data folder knows what it sends; after a kill, all is due at the next start.
        sending = [delivery.id for delivery in await outbox.lease_due(NOW, LIMITS)]
        assert await outbox.lease_due(NOW, LIMITS, sending) == []
        assert len(await outbox.lease_due(NOW, LIMITS)) == 8
        return
    found = await run_concurrently(outbox.lease_due(NOW, LIMITS) for _ in range(WRITERS))
    taken = [delivery.id for deliveries in found for delivery in deliveries]
    assert len(taken) == len(set(taken)) == 8
    assert await outbox.lease_due(NOW + SEND_LEASE_S - 1, LIMITS) == []
    assert len(await outbox.lease_due(NOW + SEND_LEASE_S, LIMITS)) == 8
    assert await query(database, "SELECT DISTINCT attempt FROM webhook_deliveries") == [(0,)]


async def test_late_result_of_delivery_is_ignored(
    database: Database, transitions: JobTransitions, outbox: Outbox, owner: ApiKey
) -> None:
    await with_deliveries(transitions, owner, 1)
    [paused] = await outbox.lease_due(NOW, LIMITS)
    [other] = await outbox.lease_due(NOW + SEND_LEASE_S, LIMITS)
    assert paused == other
    await outbox.delivered(other, NOW + 61)
    late = (outbox.failed(paused, "status 500", NOW + 100) for _ in range(WRITERS))
    await run_concurrently([*late, outbox.release([paused], NOW)])
    recorded = "SELECT attempt, next_at, delivered_at, last_error FROM webhook_deliveries"
    assert await query(database, recorded) == [(1, None, NOW + 61, None)]


@pytest.mark.usefixtures("bucket")
async def test_deleted_endpoint_leaves_no_delivery(
    database: Database, transitions: JobTransitions, outbox: Outbox, owner: ApiKey
) -> None:
    jobs = await leased(transitions, owner, webhook_url=URL)
    [endpoint] = await outbox.endpoints(owner.account_id)
    ends = [transitions.fail(job, NOW, GenerationFailed("no")) for job in jobs]
    half = WRITERS // 2
    deletions = [outbox.delete_endpoint(owner.account_id, endpoint.id) for _ in range(2)]
    found = await run_concurrently([*ends[:half], *deletions, *ends[half:]])
    deleted = found[half : half + 2]
    assert sorted(deleted) == [False, True]
    assert found == [*[True] * half, *deleted, *[True] * half]
    assert await count(database, "webhook_deliveries") == await count(database, "webhook_endpoints") == 0


@pytest.mark.usefixtures("bucket")
async def test_job_ends_while_endpoint_is_deleted(
    database: Database, transitions: JobTransitions, outbox: Outbox, owner: ApiKey
) -> None:
    urls = [f"{URL}/{number}" for number in range(WRITERS)]
    jobs = [job for url in urls for job in await leased(transitions, owner, 1, webhook_url=url)]
    endpoints = await outbox.endpoints(owner.account_id)
    found = await run_concurrently(
        interleaved(
            (transitions.fail(job, NOW, GenerationFailed("no")) for job in jobs),
            (outbox.delete_endpoint(owner.account_id, endpoint.id) for endpoint in reversed(endpoints)),
        )
    )
    assert found == [True] * 2 * WRITERS
    assert await query(database, "SELECT DISTINCT state FROM jobs") == [("failed",)]
    assert await count(database, "webhook_deliveries") == await count(database, "webhook_endpoints") == 0


async def test_replayed_request_rotates_secret_once(database: Database, outbox: Outbox, owner: ApiKey) -> None:
    await outbox.set_first_secret(owner.account_id)
    [before] = await outbox.secrets(owner.account_id, NOW)
    await run_concurrently(
        outbox.rotate_secret(owner.account_id, f"new-{number}", NOW + 60, NOW, CLAIM) for number in range(WRITERS)
    )
    new, old = await outbox.secrets(owner.account_id, NOW)
    assert new.startswith("new-")
    assert old == before


# Images -------------------------------------------------------------------------------------------------------------


async def test_starred_image_outlives_removal_of_old_jobs(
    database: Database, objects: ObjectStore, transitions: JobTransitions, owner: ApiKey
) -> None:
    ids = []
    for job in await leased(transitions, owner):
        image = new_image(job)
        assert await transitions.succeed(job, NOW, new_outcome(image))
        ids.append(image.id)
    images = ImageRepository(database, objects)

    async def star(image_id: str) -> str:
        await images.star(owner.account_id, image_id, 10**6, NOW)
        return image_id

    found = await run_concurrently(
        interleaved(map(star, ids), (transitions.remove_old(NOW + 1, 4) for _ in ids)), ImageNotFound
    )
    starred = {one for one in found[::2] if one is not ImageNotFound}
    assert {image_id for (image_id,) in await query(database, "SELECT id FROM images")} >= starred


async def test_account_stars_no_more_than_its_bytes(
    database: Database, objects: ObjectStore, transitions: JobTransitions, owner: ApiKey, bucket: None
) -> None:
    ids = []
    for job in await leased(transitions, owner):
        image = new_image(job, size_bytes=10)
        assert await transitions.succeed(job, NOW, new_outcome(image))
        ids.append(image.id)
    images = ImageRepository(database, objects)
    found = await run_concurrently(
        (images.star(owner.account_id, image_id, 55, NOW) for image_id in ids), StarLimitReached
    )
    assert found.count(StarLimitReached) == WRITERS - 5
    assert await query(database, "SELECT sum(size_bytes) FROM images WHERE is_starred = 1") == [(50,)]
