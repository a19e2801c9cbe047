"""Cancellation of one job or of a group."""

import asyncio
from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.errors import JobFinished, JobNotFound
from allaprima.service.app import Service
from allaprima.service.jobs import cancellation
from tests.fakes import FakeEngine
from tests.service.jobs.submitting import LEASED, finish, rows, submit, write


async def test_queued_job_is_cancelled_at_once(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    for _ in range(LEASED):
        await submit(service, owner)
    job = await submit(service, owner)
    await engine.until_held(LEASED)
    waiting = asyncio.create_task(finish(service, job))
    assert (await service.cancellation.cancel(owner.account_id, job.id)).state is JobState.CANCELLED
    assert (await waiting).state is JobState.CANCELLED
    engine.release()
    assert job.id not in engine.requests


async def test_running_job_is_stopped_in_engine(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    done = await service.cancellation.cancel(owner.account_id, job.id)
    assert (done.state, engine.held) == (JobState.CANCELLED, ())
    assert rows(tmp_path, "SELECT state, images, credits FROM usage") == [("cancelled", 0, 0)]


async def test_job_can_be_cancelled_at_any_point_of_lease(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    """After any number of iterations of the event loop since its submission."""
    engine.hold()
    for turns in range(40):
        job = await submit(service, owner)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await service.cancellation.cancel(owner.account_id, job.id)).state is JobState.CANCELLED
        assert job.id not in engine.held


async def test_job_that_engine_stops_late_is_returned_running(
    service: Service, owner: ApiKey, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "CONFIRM_TIMEOUT_S", 0.01)
    engine.hold()
    engine.ignores_cancel = True
    job = await submit(service, owner)
    await engine.until_held()
    assert (await service.cancellation.cancel(owner.account_id, job.id)).state is JobState.RUNNING
    engine.ignores_cancel = False
    engine.cancel(job.id)
    assert (await finish(service, job)).state is JobState.CANCELLED


async def test_finished_or_foreign_job_is_not_cancelled(service: Service, owner: ApiKey) -> None:
    job = await finish(service, await submit(service, owner))
    with pytest.raises(JobFinished, match="succeeded"):
        await service.cancellation.cancel(owner.account_id, job.id)
    with pytest.raises(JobNotFound):
        await service.cancellation.cancel("stranger", job.id)


async def test_cancelling_group_starts_none_of_its_jobs(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    done = await finish(service, await submit(service, owner, group_id="g"))
    engine.hold()
    jobs = [await submit(service, owner, group_id="g") for _ in range(LEASED + 3)]
    other = await submit(service, owner, group_id="h")
    await engine.until_held(LEASED)
    cancelled = await service.cancellation.cancel_group(owner.account_id, "g")
    assert {(job.id, job.state) for job in cancelled} == {(job.id, JobState.CANCELLED) for job in jobs}
    await engine.until_held()
    assert set(engine.requests) == {done.id, *(job.id for job in jobs[:LEASED]), other.id}
    engine.release()
    assert (await finish(service, other)).state is JobState.SUCCEEDED


async def test_unreadable_job_does_not_block_cancelling_group(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    jobs = [await submit(service, owner, group_id="g") for _ in range(LEASED + 2)]
    await engine.until_held(LEASED)
    write(tmp_path, "UPDATE jobs SET request = ? WHERE id = ?", '{"colour": "mauve"}', jobs[-1].id)
    cancelled = await service.cancellation.cancel_group(owner.account_id, "g")
    assert {job.id for job in cancelled} == {job.id for job in jobs[:-1]}


async def test_group_of_other_account_is_not_cancelled(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner, group_id="g")
    assert await service.cancellation.cancel_group("stranger", "g") == []
    engine.release()
    assert (await finish(service, job)).state is JobState.SUCCEEDED
