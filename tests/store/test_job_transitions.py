"""Transitions of jobs: leases in fair order, final states, recovery, cancellation and charges."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import ImageFormat
from allaprima.domain.jobs import Job, JobState, Priority
from allaprima.errors import GenerationFailed, JobFinished, JobUnfinished, QueueFull, StartDeadlineMissed
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions, LeaseOutcome
from allaprima.store.jobs import JobRepository
from allaprima.store.keys import KeyRepository
from tests.clock import NOW
from tests.store.backends import count, query
from tests.store.factories import REQUEST, RESULT, new_entry, new_image, new_job, new_outcome
from tests.store.reaping import WORKER, reap, register

FAILURE = GenerationFailed("out of memory")


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def transitions(database: Database) -> JobTransitions:
    return JobTransitions(database)


@pytest.fixture
def add(transitions: JobTransitions, owner: ApiKey) -> Callable[..., Awaitable[Job]]:
    """Return a function that stores a new queued job."""

    async def add(created_at: float = NOW, owner: ApiKey = owner, **fields: Any) -> Job:
        request = {name: fields.pop(name) for name in tuple(fields) if name in type(REQUEST).model_fields}
        job = new_job(owner, REQUEST.changed(**request), created_at, **fields)
        return await transitions.admit(job, 1000, waits_at=None if job.options.store else WORKER)

    return add


async def lease(transitions: JobTransitions, now: float) -> Job | None:
    """Lease the next job that can run."""
    while (outcome := await transitions.lease(WORKER, now)).ended:
        continue
    return outcome.job


async def test_new_job_is_stored_as_queued(jobs: JobRepository, add: Any) -> None:
    job = await add(width=64, height=96, count=1, image_format=ImageFormat.WEBP, check_safety=False)
    assert await jobs.get(job.id) == job
    assert not job.is_finished


async def test_get_of_unknown_job_returns_none(jobs: JobRepository) -> None:
    assert await jobs.get("unknown") is None
    assert await jobs.images_of(["unknown"], NOW) == {"unknown": []}


# Leasing ------------------------------------------------------------------------------------------------------------


async def test_jobs_of_one_key_are_leased_in_admission_order(transitions: JobTransitions, add: Any) -> None:
    early, middle, late = [await add(NOW + number) for number in range(3)]
    leased = [await lease(transitions, NOW + 3) for _ in range(4)]
    assert [job.id if job else None for job in leased] == [early.id, middle.id, late.id, None]


async def test_jobs_admitted_at_same_time_are_leased_by_id(transitions: JobTransitions, add: Any) -> None:
    added = [await add() for _ in range(5)]
    leased = [await lease(transitions, NOW) for _ in added]
    assert [job.id for job in leased if job] == sorted(job.id for job in added)


async def test_lease_starts_job_and_counts_attempt(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    job = await add()
    leased = await lease(transitions, NOW + 5)
    assert leased == replace(job, state=JobState.RUNNING, started_at=NOW + 5, attempt=1)
    assert await jobs.get(job.id) == leased


async def test_no_job_is_leased_twice(transitions: JobTransitions, add: Any) -> None:
    added = [await add() for _ in range(20)]
    leased = await asyncio.gather(*(lease(transitions, NOW) for _ in range(40)))
    assert sorted(job.id for job in leased if job) == sorted(job.id for job in added)


async def test_queued_jobs_are_counted(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    for _ in range(4):
        await add()
    assert (await jobs.load()).queued == 4
    await lease(transitions, NOW)
    assert (await jobs.load()).queued == 3


async def test_full_queue_refuses_job(transitions: JobTransitions, owner: ApiKey, database: Database) -> None:
    for _ in range(2):
        await transitions.admit(new_job(owner), queue_size=2)
    with pytest.raises(QueueFull):
        await transitions.admit(new_job(owner), queue_size=2)
    assert await count(database, "jobs") == 2
    # Running jobs count, finished ones do not.
    leased = await lease(transitions, NOW)
    with pytest.raises(QueueFull):
        await transitions.admit(new_job(owner), queue_size=2)
    await transitions.fail(leased, NOW, FAILURE)
    await transitions.admit(new_job(owner), queue_size=2)


# Endings ------------------------------------------------------------------------------------------------------------


async def test_success_stores_images_and_charge(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    await add()
    leased = await lease(transitions, NOW)
    images = [new_image(leased, 1, is_flagged=True, nsfw_score=None), new_image(leased, 0)]
    assert await transitions.succeed(leased, NOW + 9, new_outcome(*images))
    done = await jobs.get(leased.id)
    assert done == replace(leased, state=JobState.SUCCEEDED, finished_at=NOW + 9, result=RESULT)
    assert done.is_finished
    assert await jobs.images_of([leased.id], NOW) == {leased.id: [images[1], images[0]]}
    assert await count(database, "usage") == 1


async def test_usage_row_names_account_and_key(transitions: JobTransitions, add: Any, database: Database) -> None:
    await add(NOW - 1, client_request_id="mine", source="playground")
    leased = await lease(transitions, NOW)
    await transitions.succeed(leased, NOW + 9, new_outcome(new_image(leased)))
    statement = (
        "SELECT job_id, account_id, key_id, model, images, megapixels, credits, created_at, bucket, state, source,"
        " client_request_id, duration_s FROM usage"
    )
    assert await query(database, statement) == [
        (
            leased.id, "account", "key", "allaprima/sketch", 1, 0.25, 0, NOW + 9, NOW, "succeeded", "playground",
            "mine", 10.0,
        )
    ]  # fmt: skip


async def test_failed_job_stores_error_code_and_message(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    await add()
    leased = await lease(transitions, NOW)
    await transitions.fail(leased, NOW + 9, FAILURE)
    assert await jobs.get(leased.id) == replace(
        leased,
        state=JobState.FAILED,
        finished_at=NOW + 9,
        error_code="generation_failed",
        error_message="out of memory",
    )


async def test_cancelled_job_is_finished(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    await add()
    leased = await lease(transitions, NOW)
    await transitions.cancel(leased, NOW + 9)
    done = await jobs.get(leased.id)
    assert (done.state, done.finished_at, done.is_finished) == (JobState.CANCELLED, NOW + 9, True)


async def test_unsuccessful_job_is_counted_without_charge(
    transitions: JobTransitions, add: Any, database: Database
) -> None:
    for end in (
        lambda job: transitions.fail(job, NOW, FAILURE),
        lambda job: transitions.cancel(job, NOW),
        transitions.requeue,
    ):
        await add()
        await end(await lease(transitions, NOW))
    assert await query(database, "SELECT state, images, credits FROM usage ORDER BY job_id") == [
        ("failed", 0, 0),
        ("cancelled", 0, 0),
    ]
    assert await count(database, "ledger") == 0


async def test_final_state_never_changes(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    for end in (
        lambda job: transitions.succeed(job, NOW, new_outcome(new_image(job))),
        lambda job: transitions.fail(job, NOW, FAILURE),
        lambda job: transitions.cancel(job, NOW),
    ):
        await add()
        leased = await lease(transitions, NOW)
        await end(leased)
        done = await jobs.get(leased.id)
        assert not await transitions.succeed(leased, NOW + 1, new_outcome(new_image(leased)))
        await transitions.fail(leased, NOW + 1, FAILURE)
        await transitions.cancel(leased, NOW + 1)
        await transitions.requeue(leased)
        assert (await reap(database, 1, NOW + 1)).requeued == 0
        assert await lease(transitions, NOW + 1) is None
        assert await jobs.get(leased.id) == done
    assert (await count(database, "images"), await count(database, "usage"), await count(database, "ledger")) == (
        1,
        3,
        1,
    )


async def test_duplicate_results_are_stored_once(transitions: JobTransitions, add: Any, database: Database) -> None:
    await add()
    leased = await lease(transitions, NOW)
    taken = await asyncio.gather(*(transitions.succeed(leased, NOW, new_outcome(new_image(leased))) for _ in range(10)))
    assert sum(taken) == 1
    assert (await count(database, "images"), await count(database, "usage")) == (1, 1)


async def test_failed_success_transaction_stores_nothing(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    await add()
    leased = await lease(transitions, NOW)
    twin = new_image(leased)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await transitions.succeed(leased, NOW, new_outcome(twin, twin))
    assert (await jobs.get(leased.id)).state is JobState.RUNNING
    assert (await count(database, "images"), await count(database, "usage")) == (0, 0)


# Interruptions ------------------------------------------------------------------------------------------------------


async def test_requeued_job_keeps_its_queue_position(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    first = await add(NOW)
    await add(NOW + 1)
    await transitions.requeue(await lease(transitions, NOW + 2))
    assert await jobs.get(first.id) == replace(first, attempt=1)
    again = await lease(transitions, NOW + 3)
    assert (again.id, again.attempt, again.started_at) == (first.id, 2, NOW + 3)


async def test_result_of_old_attempt_is_refused(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    await add()
    old = await lease(transitions, NOW)
    await reap(database, 3, NOW)
    new = await lease(transitions, NOW + 1)
    assert (old.id, new.attempt) == (new.id, old.attempt + 1)
    assert not await transitions.succeed(old, NOW + 2, new_outcome(new_image(old)))
    await transitions.fail(old, NOW + 2, FAILURE)
    await transitions.cancel(old, NOW + 2)
    await transitions.requeue(old)
    assert await jobs.get(new.id) == new
    assert await transitions.succeed(new, NOW + 3, new_outcome(new_image(new)))
    assert (await count(database, "images"), await count(database, "usage")) == (1, 1)


async def test_queued_job_accepts_no_result(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    job = await add()
    assert not await transitions.succeed(job, NOW, new_outcome(new_image(job)))
    await transitions.fail(job, NOW, FAILURE)
    assert await jobs.get(job.id) == job


async def test_reaper_requeues_only_running_jobs(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    added = [await add(NOW + number) for number in range(4)]
    done = await lease(transitions, NOW)
    await transitions.succeed(done, NOW, new_outcome(new_image(done)))
    await lease(transitions, NOW)
    await lease(transitions, NOW)
    assert (await reap(database, 3, NOW + 9)).requeued == 2
    states = [(await jobs.get(job.id)).state for job in added]
    assert states == [JobState.SUCCEEDED, JobState.QUEUED, JobState.QUEUED, JobState.QUEUED]
    again = [await lease(transitions, NOW + 9) for _ in range(3)]
    assert [(job.id, job.attempt) for job in again] == [(added[1].id, 2), (added[2].id, 2), (added[3].id, 1)]
    # With a concurrency of one only the first leased job was being generated.
    assert [job.crashes for job in again] == [1, 0, 0]


async def test_reaper_counts_crash_of_each_concurrent_job(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    await register(database, concurrency=2)
    added = [await add() for _ in range(3)]
    for _ in added:
        await lease(transitions, NOW)
    assert (await reap(database, 3, NOW + 9)).requeued == 3
    assert [(await jobs.get(job.id)).crashes for job in added] == [1, 1, 0]


async def test_reaper_fails_job_after_too_many_crashes(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    job = await add()
    for attempt in (1, 2):
        assert (await lease(transitions, NOW)).attempt == attempt
        assert (await reap(database, 3, NOW)).requeued == 1
    assert (await lease(transitions, NOW)).attempt == 3
    assert (await reap(database, 3, NOW + 9)).requeued == 0
    failed = await jobs.get(job.id)
    assert (failed.state, failed.finished_at, failed.error_code) == (JobState.FAILED, NOW + 9, "generation_failed")
    assert "crashed 3 times" in failed.error_message
    assert await lease(transitions, NOW) is None


async def test_reaper_cancels_job_with_cancel_request(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    job = await add()
    await lease(transitions, NOW)
    assert (await transitions.request_cancel(job.id, NOW + 1)).state is JobState.RUNNING
    assert (await reap(database, 3, NOW + 2)).requeued == 0
    assert (await jobs.get(job.id)).state is JobState.CANCELLED


async def test_reaper_cancels_jobs_with_store_false(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    running, queued, stored = [await add(NOW + number, store=number == 2) for number in range(3)]
    await lease(transitions, NOW)
    assert (await reap(database, 3, NOW + 9)).requeued == 0
    states = [(await jobs.get(job.id)).state for job in (running, queued, stored)]
    assert states == [JobState.CANCELLED, JobState.CANCELLED, JobState.QUEUED]
    assert (await lease(transitions, NOW + 9)).id == stored.id
    assert await lease(transitions, NOW + 9) is None


async def test_lease_by_a_worker_that_is_not_registered_is_refused(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    job = await add()
    assert await transitions.lease("unknown", NOW) == LeaseOutcome(is_registered=False)
    assert (await jobs.get(job.id)).state is JobState.QUEUED


async def test_job_that_waits_at_a_worker_is_leased_by_no_other(
    database: Database, transitions: JobTransitions, add: Any, owner: ApiKey
) -> None:
    await register(database, "other")
    own = new_job(owner, store=False)
    await transitions.admit(own, 10, waits_at="other")
    free = await add()
    assert [(await lease(transitions, NOW)).id, await lease(transitions, NOW)] == [free.id, None]
    assert (await transitions.lease("other", NOW)).job.id == own.id


async def test_jobs_leased_without_the_workers_knowledge_are_requeued(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    lost, known = [await add(NOW + number) for number in range(2)]
    for _ in range(2):
        await lease(transitions, NOW)
    assert await transitions.requeue_lost("other", [lost.id]) == 0
    assert await transitions.requeue_lost(WORKER, [lost.id, "unknown"]) == 1
    assert [(await jobs.get(job.id)).state for job in (lost, known)] == [JobState.QUEUED, JobState.RUNNING]


async def test_result_whose_commit_was_not_answered_counts_as_stored(
    transitions: JobTransitions, add: Any, database: Database
) -> None:
    await add(held=0)
    leased = await lease(transitions, NOW)
    outcome = new_outcome(new_image(leased))
    assert [await transitions.succeed(leased, NOW, outcome) for _ in range(3)] == [True, True, True]
    assert (await count(database, "images"), await count(database, "usage")) == (1, 1)


async def test_admission_whose_commit_was_not_answered_stores_one_job(
    transitions: JobTransitions, owner: ApiKey, database: Database
) -> None:
    job = new_job(owner)
    assert [await transitions.admit(job, 10) for _ in range(2)] == [job, job]
    assert await count(database, "jobs") == 1


async def test_admission_that_filled_the_queue_is_noticed_when_it_is_repeated(
    transitions: JobTransitions, owner: ApiKey, database: Database
) -> None:
    job = new_job(owner)
    await transitions.admit(job, 1)
    with pytest.raises(QueueFull):
        await transitions.admit(new_job(owner), 1)
    if database.is_shared:
        assert await transitions.admit(job, 1) == job
    assert await count(database, "jobs") == 1


async def test_cached_result_whose_commit_was_not_answered_is_charged_once(
    transitions: JobTransitions, owner: ApiKey, database: Database
) -> None:
    await AccountRepository(database).post(owner.account_id, new_entry(10))
    job = new_job(owner, held=10)
    outcome = new_outcome(new_image(job), credits_=10)
    first = await transitions.admit_finished(job, outcome)
    if database.is_shared:
        # Its own first commit has spent the credits.
        assert await transitions.admit_finished(job, outcome) == first
    assert (await count(database, "jobs"), await count(database, "usage")) == (1, 1)
    assert first.state is JobState.SUCCEEDED


# Cancelling, missing the start, removing ----------------------------------------------------------------------------


async def test_queued_job_is_cancelled_at_once(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    job = await add()
    cancelled = await transitions.request_cancel(job.id, NOW + 5)
    assert (cancelled.state, cancelled.finished_at) == (JobState.CANCELLED, NOW + 5)
    assert await lease(transitions, NOW) is None
    with pytest.raises(JobFinished, match="cancelled"):
        await transitions.request_cancel(job.id, NOW + 6)


async def test_requeued_job_with_cancel_request_is_not_leased(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    job = await add()
    leased = await lease(transitions, NOW)
    await transitions.request_cancel(job.id, NOW + 1)
    await transitions.requeue(leased)
    assert await lease(transitions, NOW + 2) is None
    assert (await jobs.get(job.id)).state is JobState.CANCELLED


async def test_job_fails_after_start_deadline(jobs: JobRepository, transitions: JobTransitions, add: Any) -> None:
    early, late = await add(start_by=NOW + 5), await add(start_by=NOW + 50)
    assert await transitions.fail_missed_starts(NOW + 4) == []
    assert await transitions.fail_missed_starts(NOW + 5) == [early.id]
    failed = await jobs.get(early.id)
    assert (failed.state, failed.error_code) == (JobState.FAILED, StartDeadlineMissed.code)
    assert (await lease(transitions, NOW + 6)).id == late.id
    assert await transitions.fail_missed_starts(NOW + 51) == []


async def test_job_past_start_deadline_is_not_leased(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    over, other = await add(start_by=NOW + 5), await add()
    assert (await transitions.lease(WORKER, NOW + 6)).ended == (over.id, JobState.FAILED)
    assert (await lease(transitions, NOW + 6)).id == other.id
    assert (await jobs.get(over.id)).error_code == StartDeadlineMissed.code


async def test_removed_job_keeps_usage_and_ledger_entry(
    jobs: JobRepository, transitions: JobTransitions, add: Any, database: Database
) -> None:
    job = await add()
    with pytest.raises(JobUnfinished, match="queued"):
        await transitions.remove(job.id)
    leased = await lease(transitions, NOW)
    rows = (new_image(leased, 0), new_image(leased, 1))
    await transitions.succeed(leased, NOW, new_outcome(*rows, fingerprint="f"))
    assert sorted(await transitions.remove(job.id)) == sorted(row.object_name for row in rows)
    assert await jobs.get(job.id) is None
    tables = ("images", "cached_results", "usage", "ledger")
    assert [await count(database, table) for table in tables] == [0, 0, 1, 1]


async def test_finished_job_with_store_false_drops_prompt(
    jobs: JobRepository, transitions: JobTransitions, add: Any
) -> None:
    job = await add(prompt="a secret", store=False)
    assert (await jobs.get(job.id)).request.prompt == "a secret"
    await transitions.succeed(await lease(transitions, NOW), NOW, new_outcome())
    assert "secret" not in (await jobs.get(job.id)).request.prompt


# Fair order ---------------------------------------------------------------------------------------------------------


async def leased_keys(transitions: JobTransitions, number: int) -> str:
    """Lease and finish some jobs; return the last letter of each one's key."""
    found = ""
    for _ in range(number):
        job = await lease(transitions, NOW)
        found += job.key_id[-1]
        await transitions.fail(job, NOW, FAILURE)
    return found


@pytest.fixture
async def other(database: Database, owner: ApiKey) -> ApiKey:
    row = replace(owner, id="key-b", prefix="bbbbbbbb")
    assert await KeyRepository(database).add(row, "hash-b")
    return row


async def test_single_job_does_not_wait_for_backlog_of_another_key(
    transitions: JobTransitions, add: Any, other: ApiKey
) -> None:
    for _ in range(100):
        await add(predicted_s=1.0)
    await leased_keys(transitions, 3)
    await add(owner=other, predicted_s=1.0)
    assert "b" in await leased_keys(transitions, 3)


async def test_keys_share_engine_time_equally(transitions: JobTransitions, add: Any, other: ApiKey) -> None:
    for _ in range(12):
        await add(predicted_s=1.0)
    for _ in range(4):
        await add(owner=other, predicted_s=3.0)
    order = await leased_keys(transitions, 16)
    assert all(order[:end].count("b") * 3 <= order[:end].count("y") + 3 for end in range(17))
    assert order.count("b") == 4


async def test_idle_key_earns_no_credit_for_later(transitions: JobTransitions, add: Any, other: ApiKey) -> None:
    for _ in range(20):
        await add(predicted_s=1.0)
    await leased_keys(transitions, 10)
    for _ in range(10):
        await add(owner=other, predicted_s=1.0)
    assert 4 <= (await leased_keys(transitions, 10)).count("b") <= 6


async def test_priority_reorders_only_jobs_of_same_key(
    jobs: JobRepository, transitions: JobTransitions, add: Any, other: ApiKey
) -> None:
    first = await add(predicted_s=1.0)
    others = await add(owner=other, predicted_s=1.0)
    await add(predicted_s=1.0)
    urgent = await add(predicted_s=1.0, priority=Priority.HIGH)
    assert (await jobs.ahead_of(urgent.id))[0] == 0
    order = [(await lease(transitions, NOW)).id for _ in range(3)]
    assert order == [urgent.id, others.id, first.id]


async def test_low_priority_jobs_run_when_nothing_else_is_queued(
    transitions: JobTransitions, add: Any, other: ApiKey
) -> None:
    low = await add(priority=Priority.LOW)
    normal = [await add(owner=other) for _ in range(3)]
    assert [(await lease(transitions, NOW)).id for _ in range(4)] == [*(job.id for job in normal), low.id]


async def test_queue_position_predicts_lease_order(
    jobs: JobRepository, transitions: JobTransitions, add: Any, other: ApiKey
) -> None:
    added = []
    for number in range(24):
        who = {"owner": other} if number % 3 == 0 else {}
        added.append(await add(predicted_s=1.0 + number % 5, priority=list(Priority)[number % 3], **who))
    positions = {job.id: await jobs.ahead_of(job.id) for job in added}
    for position in range(24):
        leased = await lease(transitions, NOW)
        assert positions[leased.id][0] == position
    assert await jobs.ahead_of(added[0].id) is None


@pytest.mark.parametrize("priority", Priority)
async def test_estimated_position_equals_position_after_admission(
    jobs: JobRepository, add: Any, other: ApiKey, priority: Priority
) -> None:
    for number in range(12):
        who = {"owner": other} if number % 3 == 0 else {}
        await add(predicted_s=1.0 + number % 5, priority=list(Priority)[number % 3], **who)
    foreseen = await jobs.ahead_of_new(other.id, priority, 2.0)
    job = await add(owner=other, predicted_s=2.0, priority=priority)
    assert await jobs.ahead_of(job.id) == (*foreseen, 2.0)


async def test_seconds_ahead_sum_the_jobs_ahead(jobs: JobRepository, add: Any) -> None:
    added = [await add(predicted_s=float(seconds)) for seconds in (2, 3, 5)]
    assert [await jobs.ahead_of(job.id) for job in added] == [(0, 0.0, 2.0), (1, 2.0, 3.0), (2, 5.0, 5.0)]
    assert (await jobs.load()).queued_s == 10.0
