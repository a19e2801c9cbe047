"""The state machine of a job, as its rows tell it: leased in order, finished once, charged once."""

import asyncio
import itertools
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from allaprima.request import ImageFormat, ImageRequest
from allaprima.store.database import DATABASE_FILE, Database
from allaprima.store.jobs import ImageRow, Job, Jobs, UsageRow
from allaprima.store.keys import KeyRow
from allaprima.store.schema import JobState
from fakes import NOON

RESULT = {"model": "allaprima/sketch", "revision": "5" * 40, "warnings": [], "timings": {"inference": 0.5}}
CHARGE = UsageRow("allaprima/sketch", images=1, megapixels=0.25, credits=0)
numbers = itertools.count()


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def add(jobs: Jobs, owner: KeyRow) -> Callable[..., Awaitable[Job]]:
    """Store a new queued job."""

    async def add(created_at: float = NOON, **fields: Any) -> Job:
        request = ImageRequest(**{"prompt": "a boat", "seed": 2**63 - 1, "model": "allaprima/sketch"} | fields)
        job = Job(
            f"job-{next(numbers):06}", owner.account_id, owner.id, JobState.QUEUED, request, created_at,
            None, None, 0, 0, None, None, None,
        )  # fmt: skip
        await jobs.add(job)
        return job

    return add


def picture(job: Job, place: int = 0, **fields: Any) -> ImageRow:
    row = ImageRow(
        id=f"{job.id}-{place}-{next(numbers)}",
        job_id=job.id,
        place=place,
        object_name=f"{job.id}-{place}.png",
        content_type="image/png",
        size_bytes=100,
        sha256="0" * 64,
        seed=2**63 - 1,
        nsfw_score=0.5,
        is_flagged=False,
        created_at=NOON,
        expires_at=NOON + 60,
    )
    return replace(row, **fields)


def count(folder: Path, table: str) -> int:
    raw = sqlite3.connect(folder / DATABASE_FILE)
    try:
        return raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - a name of ours
    finally:
        raw.close()


async def test_a_new_job_is_queued_and_complete(jobs: Jobs, add: Any) -> None:
    job = await add(width=64, height=96, count=1, image_format=ImageFormat.WEBP, check_safety=False)
    assert await jobs.get(job.id) == job
    assert not job.is_finished


async def test_an_unknown_job_is_none(jobs: Jobs) -> None:
    assert await jobs.get("nobody") is None
    assert await jobs.images_of("nobody") == []


# Leasing ------------------------------------------------------------------------------------------------------------


async def test_jobs_are_leased_oldest_first(jobs: Jobs, add: Any) -> None:
    late = await add(NOON + 2)
    early = await add(NOON)
    middle = await add(NOON + 1)
    leased = [await jobs.lease(NOON + 3) for _ in range(4)]
    assert [job.id if job else None for job in leased] == [early.id, middle.id, late.id, None]


async def test_jobs_of_the_same_moment_are_leased_in_the_order_of_their_ids(jobs: Jobs, add: Any) -> None:
    added = [await add() for _ in range(5)]
    leased = [await jobs.lease(NOON) for _ in added]
    assert [job.id for job in leased if job] == sorted(job.id for job in added)


async def test_a_leased_job_runs_and_counts_its_attempt(jobs: Jobs, add: Any) -> None:
    job = await add()
    leased = await jobs.lease(NOON + 5)
    assert leased == replace(job, state=JobState.RUNNING, started_at=NOON + 5, attempt=1)
    assert await jobs.get(job.id) == leased


async def test_no_job_is_leased_twice(jobs: Jobs, add: Any) -> None:
    added = [await add() for _ in range(20)]
    leased = await asyncio.gather(*(jobs.lease(NOON) for _ in range(40)))
    assert sorted(job.id for job in leased if job) == sorted(job.id for job in added)


async def test_waiting_jobs_are_those_not_finished(jobs: Jobs, add: Any) -> None:
    for _ in range(4):
        await add()
    assert await jobs.count_waiting() == 4
    first = await jobs.lease(NOON)
    await jobs.lease(NOON)
    assert await jobs.count_waiting() == 4
    await jobs.fail(first, NOON, "generation_failed", "no colours")
    assert await jobs.count_waiting() == 3


# Endings ------------------------------------------------------------------------------------------------------------


async def test_success_brings_the_pictures_and_the_charge_with_it(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    await add()
    leased = await jobs.lease(NOON)
    pictures = [picture(leased, 1, is_flagged=True, nsfw_score=None), picture(leased, 0)]
    assert await jobs.succeed(leased, NOON + 9, RESULT, pictures, CHARGE)
    done = await jobs.get(leased.id)
    assert done == replace(leased, state=JobState.SUCCEEDED, finished_at=NOON + 9, result=RESULT)
    assert done.is_finished
    assert await jobs.images_of(leased.id) == [pictures[1], pictures[0]]
    assert count(tmp_path, "usage") == 1


async def test_the_charge_is_the_jobs_account_and_key(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    await add()
    leased = await jobs.lease(NOON)
    await jobs.succeed(leased, NOON + 9, RESULT, [picture(leased)], CHARGE)
    raw = sqlite3.connect(tmp_path / DATABASE_FILE)
    row = raw.execute("SELECT job_id, account_id, key_id, model, images, megapixels, credits, created_at FROM usage")
    assert row.fetchall() == [(leased.id, "account", "key", "allaprima/sketch", 1, 0.25, 0, NOON + 9)]
    raw.close()


async def test_a_failure_says_why(jobs: Jobs, add: Any) -> None:
    await add()
    leased = await jobs.lease(NOON)
    await jobs.fail(leased, NOON + 9, "generation_failed", "no colours")
    assert await jobs.get(leased.id) == replace(
        leased,
        state=JobState.FAILED,
        finished_at=NOON + 9,
        error_code="generation_failed",
        error_message="no colours",
    )


async def test_a_cancelled_job_is_finished(jobs: Jobs, add: Any) -> None:
    await add()
    leased = await jobs.lease(NOON)
    await jobs.cancel(leased, NOON + 9)
    done = await jobs.get(leased.id)
    assert (done.state, done.finished_at, done.is_finished) == (JobState.CANCELLED, NOON + 9, True)


async def test_only_success_is_charged(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    for end in (
        lambda job: jobs.fail(job, NOON, "generation_failed", "x"),
        lambda job: jobs.cancel(job, NOON),
        jobs.requeue,
    ):
        await add()
        await end(await jobs.lease(NOON))
    assert count(tmp_path, "usage") == 0


async def test_a_finished_job_is_finished_for_good(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    for end in (
        lambda job: jobs.succeed(job, NOON, RESULT, [picture(job)], CHARGE),
        lambda job: jobs.fail(job, NOON, "generation_failed", "x"),
        lambda job: jobs.cancel(job, NOON),
    ):
        await add()
        leased = await jobs.lease(NOON)
        await end(leased)
        done = await jobs.get(leased.id)
        assert not await jobs.succeed(leased, NOON + 1, {}, [picture(leased)], CHARGE)
        await jobs.fail(leased, NOON + 1, "other", "other")
        await jobs.cancel(leased, NOON + 1)
        await jobs.requeue(leased)
        assert await jobs.requeue_all(1, NOON + 1) == 0
        assert await jobs.lease(NOON + 1) is None
        assert await jobs.get(leased.id) == done
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (1, 1)


async def test_of_many_equal_results_one_is_taken(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    await add()
    leased = await jobs.lease(NOON)
    taken = await asyncio.gather(*(jobs.succeed(leased, NOON, RESULT, [picture(leased)], CHARGE) for _ in range(10)))
    assert sum(taken) == 1
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (1, 1)


async def test_a_success_that_can_not_be_stored_whole_is_not_stored(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    await add()
    leased = await jobs.lease(NOON)
    twin = picture(leased)
    with pytest.raises(Exception, match="UNIQUE"):
        await jobs.succeed(leased, NOON, RESULT, [twin, twin], CHARGE)
    assert (await jobs.get(leased.id)).state is JobState.RUNNING
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (0, 0)


# Interruptions ------------------------------------------------------------------------------------------------------


async def test_an_interrupted_job_waits_again_in_its_place(jobs: Jobs, add: Any) -> None:
    first = await add(NOON)
    await add(NOON + 1)
    await jobs.requeue(await jobs.lease(NOON + 2))
    assert await jobs.get(first.id) == replace(first, attempt=1)
    again = await jobs.lease(NOON + 3)
    assert (again.id, again.attempt, again.started_at) == (first.id, 2, NOON + 3)


async def test_the_result_of_an_old_attempt_is_refused(jobs: Jobs, add: Any, tmp_path: Path) -> None:
    await add()
    old = await jobs.lease(NOON)
    await jobs.requeue_all(3, NOON)
    new = await jobs.lease(NOON + 1)
    assert (old.id, new.attempt) == (new.id, old.attempt + 1)
    assert not await jobs.succeed(old, NOON + 2, RESULT, [picture(old)], CHARGE)
    await jobs.fail(old, NOON + 2, "generation_failed", "x")
    await jobs.cancel(old, NOON + 2)
    await jobs.requeue(old)
    assert await jobs.get(new.id) == new
    assert await jobs.succeed(new, NOON + 3, RESULT, [picture(new)], CHARGE)
    assert (count(tmp_path, "images"), count(tmp_path, "usage")) == (1, 1)


async def test_a_job_that_waits_takes_no_result(jobs: Jobs, add: Any) -> None:
    job = await add()
    assert not await jobs.succeed(job, NOON, RESULT, [picture(job)], CHARGE)
    await jobs.fail(job, NOON, "generation_failed", "x")
    assert await jobs.get(job.id) == job


async def test_after_a_crash_what_ran_waits_again_and_the_rest_stands(jobs: Jobs, add: Any) -> None:
    added = [await add(NOON + number) for number in range(4)]
    done = await jobs.lease(NOON)
    await jobs.succeed(done, NOON, RESULT, [picture(done)], CHARGE)
    await jobs.lease(NOON)
    await jobs.lease(NOON)
    assert await jobs.requeue_all(3, NOON + 9) == 2
    states = [(await jobs.get(job.id)).state for job in added]
    assert states == [JobState.SUCCEEDED, JobState.QUEUED, JobState.QUEUED, JobState.QUEUED]
    again = [await jobs.lease(NOON + 9) for _ in range(3)]
    assert [(job.id, job.attempt) for job in again] == [(added[1].id, 2), (added[2].id, 2), (added[3].id, 1)]
    # Only the first was being painted; the other waited behind it.
    assert [job.crashes for job in again] == [1, 0, 0]


async def test_a_job_that_took_every_server_down_fails_with_the_reason(jobs: Jobs, add: Any) -> None:
    job = await add()
    for attempt in (1, 2):
        assert (await jobs.lease(NOON)).attempt == attempt
        assert await jobs.requeue_all(3, NOON) == 1
    assert (await jobs.lease(NOON)).attempt == 3
    assert await jobs.requeue_all(3, NOON + 9) == 0
    failed = await jobs.get(job.id)
    assert (failed.state, failed.finished_at, failed.error_code) == (JobState.FAILED, NOON + 9, "generation_failed")
    assert "died 3 times" in failed.error_message
    assert await jobs.lease(NOON) is None
