"""The state machine of a job, as its rows tell it: leased in order, finished once, charged once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import ImageFormat
from allaprima.domain.jobs import Job, JobState, Priority
from allaprima.errors import GenerationFailed, JobFinished, JobUnfinished, QueueFull, StartDeadlineMissed
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.keys import KeyRepository
from fakes import NOON
from store.made import REQUEST, RESULT, ask, count, new_job, outcome, picture

NO = GenerationFailed("no colours")


@pytest.fixture
def jobs(database: Database) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def moves(database: Database) -> JobTransitions:
    return JobTransitions(database)


@pytest.fixture
def add(moves: JobTransitions, owner: ApiKey) -> Callable[..., Awaitable[Job]]:
    """Store a new queued job."""

    async def add(created_at: float = NOON, owner: ApiKey = owner, **fields: Any) -> Job:
        request = {name: fields.pop(name) for name in tuple(fields) if name in REQUEST.__dataclass_fields__}
        return await moves.admit(new_job(owner, REQUEST.changed(**request), created_at, **fields), queue_size=1000)

    return add


async def test_a_new_job_is_queued_and_complete(jobs: JobRepository, add: Any) -> None:
    job = await add(width=64, height=96, count=1, image_format=ImageFormat.WEBP, check_safety=False)
    assert await jobs.get(job.id) == job
    assert not job.is_finished


async def test_an_unknown_job_is_none(jobs: JobRepository) -> None:
    assert await jobs.get("nobody") is None
    assert await jobs.images_of(["nobody"], NOON) == {"nobody": []}


# Leasing ------------------------------------------------------------------------------------------------------------


async def test_jobs_of_one_key_are_leased_as_they_came(moves: JobTransitions, add: Any) -> None:
    early, middle, late = [await add(NOON + number) for number in range(3)]
    leased = [await moves.lease(NOON + 3, NOON + 60) for _ in range(4)]
    assert [job.id if job else None for job in leased] == [early.id, middle.id, late.id, None]


async def test_jobs_of_the_same_moment_are_leased_in_the_order_of_their_ids(moves: JobTransitions, add: Any) -> None:
    added = [await add() for _ in range(5)]
    leased = [await moves.lease(NOON, NOON + 60) for _ in added]
    assert [job.id for job in leased if job] == sorted(job.id for job in added)


async def test_a_leased_job_runs_and_counts_its_attempt(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    job = await add()
    leased = await moves.lease(NOON + 5, NOON + 60)
    assert leased == replace(job, state=JobState.RUNNING, started_at=NOON + 5, attempt=1)
    assert await jobs.get(job.id) == leased


async def test_no_job_is_leased_twice(moves: JobTransitions, add: Any) -> None:
    added = [await add() for _ in range(20)]
    leased = await asyncio.gather(*(moves.lease(NOON, NOON + 60) for _ in range(40)))
    assert sorted(job.id for job in leased if job) == sorted(job.id for job in added)


async def test_queued_jobs_are_counted(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    for _ in range(4):
        await add()
    assert (await jobs.load()).queued == 4
    await moves.lease(NOON, NOON + 60)
    assert (await jobs.load()).queued == 3


async def test_a_full_queue_takes_no_more(moves: JobTransitions, owner: ApiKey, tmp_path: Path) -> None:
    for _ in range(2):
        await moves.admit(new_job(owner), queue_size=2)
    with pytest.raises(QueueFull):
        await moves.admit(new_job(owner), queue_size=2)
    assert count(tmp_path, "jobs") == 2
    # A job that runs still counts; one that has ended does not.
    leased = await moves.lease(NOON, NOON + 60)
    with pytest.raises(QueueFull):
        await moves.admit(new_job(owner), queue_size=2)
    await moves.fail(leased, NOON, NO)
    await moves.admit(new_job(owner), queue_size=2)


# Endings ------------------------------------------------------------------------------------------------------------


async def test_success_brings_the_pictures_and_the_charge_with_it(
    jobs: JobRepository, moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    pictures = [picture(leased, 1, is_flagged=True, nsfw_score=None), picture(leased, 0)]
    assert await moves.succeed(leased, NOON + 9, outcome(*pictures))
    done = await jobs.get(leased.id)
    assert done == replace(leased, state=JobState.SUCCEEDED, finished_at=NOON + 9, result=RESULT)
    assert done.is_finished
    assert await jobs.images_of([leased.id], NOON) == {leased.id: [pictures[1], pictures[0]]}
    assert count(tmp_path, "usage") == 1


async def test_the_charge_is_the_jobs_account_and_key(moves: JobTransitions, add: Any, tmp_path: Path) -> None:
    await add(NOON - 1, client_request_id="mine", origin="playground")
    leased = await moves.lease(NOON, NOON + 60)
    await moves.succeed(leased, NOON + 9, outcome(picture(leased)))
    statement = (
        "SELECT job_id, account_id, key_id, model, images, megapixels, credits, created_at, slot, state, origin,"
        " client_request_id, duration_s FROM usage"
    )
    assert ask(tmp_path, statement) == [
        (
            leased.id, "account", "key", "allaprima/sketch", 1, 0.25, 0, NOON + 9, NOON, "succeeded", "playground",
            "mine", 10.0,
        )
    ]  # fmt: skip


async def test_a_failure_says_why(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    await moves.fail(leased, NOON + 9, NO)
    assert await jobs.get(leased.id) == replace(
        leased,
        state=JobState.FAILED,
        finished_at=NOON + 9,
        error_code="generation_failed",
        error_message="no colours",
    )


async def test_a_cancelled_job_is_finished(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    await moves.cancel(leased, NOON + 9)
    done = await jobs.get(leased.id)
    assert (done.state, done.finished_at, done.is_finished) == (JobState.CANCELLED, NOON + 9, True)


async def test_what_did_not_succeed_is_counted_and_costs_nothing(
    moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    for end in (
        lambda job: moves.fail(job, NOON, NO),
        lambda job: moves.cancel(job, NOON),
        moves.requeue,
    ):
        await add()
        await end(await moves.lease(NOON, NOON + 60))
    assert ask(tmp_path, "SELECT state, images, credits FROM usage ORDER BY rowid") == [
        ("failed", 0, 0),
        ("cancelled", 0, 0),
    ]
    assert count(tmp_path, "ledger") == 0


async def test_a_finished_job_is_finished_for_good(
    jobs: JobRepository, moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    for end in (
        lambda job: moves.succeed(job, NOON, outcome(picture(job))),
        lambda job: moves.fail(job, NOON, NO),
        lambda job: moves.cancel(job, NOON),
    ):
        await add()
        leased = await moves.lease(NOON, NOON + 60)
        await end(leased)
        done = await jobs.get(leased.id)
        assert not await moves.succeed(leased, NOON + 1, outcome(picture(leased)))
        await moves.fail(leased, NOON + 1, NO)
        await moves.cancel(leased, NOON + 1)
        await moves.requeue(leased)
        assert await moves.requeue_all(1, NOON + 1) == 0
        assert await moves.lease(NOON + 1, NOON + 60) is None
        assert await jobs.get(leased.id) == done
    assert (count(tmp_path, "images"), count(tmp_path, "usage"), count(tmp_path, "ledger")) == (1, 3, 1)


async def test_of_many_equal_results_one_is_taken(moves: JobTransitions, add: Any, tmp_path: Path) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    taken = await asyncio.gather(*(moves.succeed(leased, NOON, outcome(picture(leased))) for _ in range(10)))
    assert sum(taken) == 1
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (1, 1)


async def test_a_success_that_can_not_be_stored_whole_is_not_stored(
    jobs: JobRepository, moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    twin = picture(leased)
    with pytest.raises(Exception, match="UNIQUE"):
        await moves.succeed(leased, NOON, outcome(twin, twin))
    assert (await jobs.get(leased.id)).state is JobState.RUNNING
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (0, 0)


# Interruptions ------------------------------------------------------------------------------------------------------


async def test_an_interrupted_job_waits_again_in_its_place(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    first = await add(NOON)
    await add(NOON + 1)
    await moves.requeue(await moves.lease(NOON + 2, NOON + 60))
    assert await jobs.get(first.id) == replace(first, attempt=1)
    again = await moves.lease(NOON + 3, NOON + 60)
    assert (again.id, again.attempt, again.started_at) == (first.id, 2, NOON + 3)


async def test_the_result_of_an_old_attempt_is_refused(
    jobs: JobRepository, moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    await add()
    old = await moves.lease(NOON, NOON + 60)
    await moves.requeue_all(3, NOON)
    new = await moves.lease(NOON + 1, NOON + 60)
    assert (old.id, new.attempt) == (new.id, old.attempt + 1)
    assert not await moves.succeed(old, NOON + 2, outcome(picture(old)))
    await moves.fail(old, NOON + 2, NO)
    await moves.cancel(old, NOON + 2)
    await moves.requeue(old)
    assert await jobs.get(new.id) == new
    assert await moves.succeed(new, NOON + 3, outcome(picture(new)))
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (1, 1)


async def test_a_job_that_waits_takes_no_result(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    job = await add()
    assert not await moves.succeed(job, NOON, outcome(picture(job)))
    await moves.fail(job, NOON, NO)
    assert await jobs.get(job.id) == job


async def test_after_a_crash_what_ran_waits_again_and_the_rest_stands(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    added = [await add(NOON + number) for number in range(4)]
    done = await moves.lease(NOON, NOON + 60)
    await moves.succeed(done, NOON, outcome(picture(done)))
    await moves.lease(NOON, NOON + 60)
    await moves.lease(NOON, NOON + 60)
    assert await moves.requeue_all(3, NOON + 9) == 2
    states = [(await jobs.get(job.id)).state for job in added]
    assert states == [JobState.SUCCEEDED, JobState.QUEUED, JobState.QUEUED, JobState.QUEUED]
    again = [await moves.lease(NOON + 9, NOON + 60) for _ in range(3)]
    assert [(job.id, job.attempt) for job in again] == [(added[1].id, 2), (added[2].id, 2), (added[3].id, 1)]
    # Only the first was being painted; the other waited behind it.
    assert [job.crashes for job in again] == [1, 0, 0]


async def test_all_that_were_painted_abreast_may_have_taken_the_server_down(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    added = [await add() for _ in range(3)]
    for _ in added:
        await moves.lease(NOON, NOON + 60)
    assert await moves.requeue_all(3, NOON + 9, abreast=2) == 3
    assert [(await jobs.get(job.id)).crashes for job in added] == [1, 1, 0]


async def test_a_job_that_took_every_server_down_fails_with_the_reason(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    job = await add()
    for attempt in (1, 2):
        assert (await moves.lease(NOON, NOON + 60)).attempt == attempt
        assert await moves.requeue_all(3, NOON) == 1
    assert (await moves.lease(NOON, NOON + 60)).attempt == 3
    assert await moves.requeue_all(3, NOON + 9) == 0
    failed = await jobs.get(job.id)
    assert (failed.state, failed.finished_at, failed.error_code) == (JobState.FAILED, NOON + 9, "generation_failed")
    assert "died 3 times" in failed.error_message
    assert await moves.lease(NOON, NOON + 60) is None


async def test_after_a_crash_what_was_to_be_cancelled_is(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    job = await add()
    await moves.lease(NOON, NOON + 60)
    assert (await moves.ask_cancel(job.id, NOON + 1)).state is JobState.RUNNING
    assert await moves.requeue_all(3, NOON + 2) == 0
    assert (await jobs.get(job.id)).state is JobState.CANCELLED


async def test_a_lapsed_lease_is_taken_back(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    await add()
    leased = await moves.lease(NOON, NOON + 60)
    assert await moves.requeue_lapsed(NOON + 60) == 0
    await moves.renew([leased], NOON + 120)
    assert await moves.requeue_lapsed(NOON + 119) == 0
    assert await moves.requeue_lapsed(NOON + 121) == 1
    again = await moves.lease(NOON + 121, NOON + 200)
    assert (again.id, again.attempt) == (leased.id, 2)
    # Whoever held the old lease comes late.
    assert not await moves.succeed(leased, NOON + 122, outcome(picture(leased)))
    await moves.renew([leased], NOON + 999)
    assert await moves.requeue_lapsed(NOON + 201) == 1


# Cancelling, missing the start, removing ----------------------------------------------------------------------------


async def test_a_queued_job_is_cancelled_at_once(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    job = await add()
    cancelled = await moves.ask_cancel(job.id, NOON + 5)
    assert (cancelled.state, cancelled.finished_at) == (JobState.CANCELLED, NOON + 5)
    assert await moves.lease(NOON, NOON + 60) is None
    with pytest.raises(JobFinished, match="cancelled"):
        await moves.ask_cancel(job.id, NOON + 6)


async def test_a_job_that_was_put_back_is_not_leased_once_its_cancel_was_asked(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    job = await add()
    leased = await moves.lease(NOON, NOON + 60)
    await moves.ask_cancel(job.id, NOON + 1)
    await moves.requeue(leased)
    assert await moves.lease(NOON + 2, NOON + 60) is None
    assert (await jobs.get(job.id)).state is JobState.CANCELLED


async def test_a_job_that_may_not_start_any_more_fails(jobs: JobRepository, moves: JobTransitions, add: Any) -> None:
    early, late = await add(start_by=NOON + 5), await add(start_by=NOON + 50)
    assert await jobs.start_deadlines() == [(early.id, NOON + 5), (late.id, NOON + 50)]
    assert not await moves.miss_start(early.id, NOON + 4)
    assert await moves.miss_start(early.id, NOON + 5)
    failed = await jobs.get(early.id)
    assert (failed.state, failed.error_code) == (JobState.FAILED, StartDeadlineMissed.code)
    assert (await moves.lease(NOON + 6, NOON + 60)).id == late.id
    assert not await moves.miss_start(late.id, NOON + 51)


async def test_a_job_whose_time_to_start_is_over_is_not_leased(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    over, other = await add(start_by=NOON + 5), await add()
    assert (await moves.lease(NOON + 6, NOON + 60)).id == other.id
    assert (await jobs.get(over.id)).error_code == StartDeadlineMissed.code


async def test_a_removed_job_leaves_its_bill_behind(
    jobs: JobRepository, moves: JobTransitions, add: Any, tmp_path: Path
) -> None:
    job = await add()
    with pytest.raises(JobUnfinished, match="queued"):
        await moves.remove(job.id)
    leased = await moves.lease(NOON, NOON + 60)
    rows = (picture(leased, 0), picture(leased, 1))
    await moves.succeed(leased, NOON, outcome(*rows, fingerprint="f"))
    assert sorted(await moves.remove(job.id)) == sorted(row.object_name for row in rows)
    assert await jobs.get(job.id) is None
    tables = ("images", "results", "usage", "ledger")
    assert [count(tmp_path, table) for table in tables] == [0, 0, 1, 1]


async def test_a_job_that_nobody_may_keep_forgets_its_prompt(
    jobs: JobRepository, moves: JobTransitions, add: Any
) -> None:
    job = await add(prompt="a secret", is_kept=False)
    assert (await jobs.get(job.id)).request.prompt == "a secret"
    await moves.succeed(await moves.lease(NOON, NOON + 60), NOON, outcome())
    assert "secret" not in (await jobs.get(job.id)).request.prompt


# Fair order ---------------------------------------------------------------------------------------------------------


async def leased_keys(moves: JobTransitions, number: int) -> str:
    """Lease and finish some jobs; return whose they were, a letter each."""
    found = ""
    for _ in range(number):
        job = await moves.lease(NOON, NOON + 60)
        found += job.key_id[-1]
        await moves.fail(job, NOON, NO)
    return found


@pytest.fixture
async def other(database: Database, owner: ApiKey) -> ApiKey:
    row = replace(owner, id="key-b", prefix="bbbbbbbb")
    assert await KeyRepository(database).add(row, "hash-b")
    return row


async def test_a_key_that_sends_one_job_does_not_wait_for_all_of_another(
    moves: JobTransitions, add: Any, other: ApiKey
) -> None:
    for _ in range(100):
        await add(predicted_s=1.0)
    await leased_keys(moves, 3)
    await add(owner=other, predicted_s=1.0)
    assert "b" in await leased_keys(moves, 3)


async def test_keys_take_turns_by_seconds(moves: JobTransitions, add: Any, other: ApiKey) -> None:
    for _ in range(12):
        await add(predicted_s=1.0)
    for _ in range(4):
        await add(owner=other, predicted_s=3.0)
    order = await leased_keys(moves, 16)
    assert all(order[:end].count("b") * 3 <= order[:end].count("y") + 3 for end in range(17))
    assert order.count("b") == 4


async def test_a_key_that_rested_has_saved_nothing_up(moves: JobTransitions, add: Any, other: ApiKey) -> None:
    for _ in range(20):
        await add(predicted_s=1.0)
    await leased_keys(moves, 10)
    for _ in range(10):
        await add(owner=other, predicted_s=1.0)
    assert 4 <= (await leased_keys(moves, 10)).count("b") <= 6


async def test_priority_orders_a_keys_own_jobs_and_takes_no_turn_from_others(
    jobs: JobRepository, moves: JobTransitions, add: Any, other: ApiKey
) -> None:
    first = await add(predicted_s=1.0)
    strangers = await add(owner=other, predicted_s=1.0)
    await add(predicted_s=1.0)
    urgent = await add(predicted_s=1.0, priority=Priority.HIGH)
    assert (await jobs.ahead_of(urgent.id))[0] == 0
    order = [(await moves.lease(NOON, NOON + 60)).id for _ in range(3)]
    assert order == [urgent.id, strangers.id, first.id]


async def test_low_jobs_wait_until_nothing_else_does(moves: JobTransitions, add: Any, other: ApiKey) -> None:
    low = await add(priority=Priority.LOW)
    normal = [await add(owner=other) for _ in range(3)]
    assert [(await moves.lease(NOON, NOON + 60)).id for _ in range(4)] == [*(job.id for job in normal), low.id]


async def test_the_place_in_the_queue_is_the_order_in_which_jobs_are_leased(
    jobs: JobRepository, moves: JobTransitions, add: Any, other: ApiKey
) -> None:
    added = []
    for number in range(24):
        who = {"owner": other} if number % 3 == 0 else {}
        added.append(await add(predicted_s=1.0 + number % 5, priority=list(Priority)[number % 3], **who))
    places = {job.id: await jobs.ahead_of(job.id) for job in added}
    for place in range(24):
        leased = await moves.lease(NOON, NOON + 60)
        assert places[leased.id][0] == place
    assert await jobs.ahead_of(added[0].id) is None


@pytest.mark.parametrize("priority", Priority)
async def test_what_would_be_ahead_of_a_job_is_ahead_of_it_once_it_is_there(
    jobs: JobRepository, add: Any, other: ApiKey, priority: Priority
) -> None:
    for number in range(12):
        who = {"owner": other} if number % 3 == 0 else {}
        await add(predicted_s=1.0 + number % 5, priority=list(Priority)[number % 3], **who)
    foreseen = await jobs.ahead_of_new(other.id, priority, 2.0)
    job = await add(owner=other, predicted_s=2.0, priority=priority)
    assert await jobs.ahead_of(job.id) == (*foreseen, 2.0)


async def test_the_seconds_ahead_are_those_of_the_jobs_ahead(jobs: JobRepository, add: Any) -> None:
    added = [await add(predicted_s=float(seconds)) for seconds in (2, 3, 5)]
    assert [await jobs.ahead_of(job.id) for job in added] == [(0, 0.0, 2.0), (1, 2.0, 3.0), (2, 5.0, 5.0)]
    assert (await jobs.load()).queued_s == 10.0
