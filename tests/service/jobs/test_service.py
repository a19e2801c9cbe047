"""Jobs of an account: read, awaited, watched and deleted."""

import asyncio
from pathlib import Path

import pytest
from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobFilter, JobState
from allaprima.errors import Draining, GenerationTimeout, ImageNotFound, JobNotFound, JobUnfinished
from allaprima.service.app import Service
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import LEASED, LIMIT_S, finish, submit
from tests.service.jobs.test_queue import new_job


async def test_waiting_for_finished_job_returns_at_once(service: Service, owner: ApiKey) -> None:
    job = await submit(service, owner)
    assert await finish(service, job) == await finish(service, job) == await service.jobs.wait(job, 0)


async def test_waiting_for_unknown_job_raises_job_not_found(service: Service) -> None:
    with pytest.raises(JobNotFound):
        await service.jobs.wait(new_job(), LIMIT_S)


async def test_job_continues_after_wait_timeout(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    with pytest.raises(GenerationTimeout) as caught:
        await service.jobs.wait(job, 0.01)
    assert caught.value.job_id == job.id
    assert engine.held == (job.id,)
    engine.release()
    assert (await finish(service, job)).state is JobState.SUCCEEDED


async def test_cancelled_wait_does_not_affect_other_waiting_clients(
    service: Service, owner: ApiKey, engine: FakeEngine
) -> None:
    engine.hold()
    job = await submit(service, owner)
    waiting = [asyncio.create_task(finish(service, job)) for _ in range(3)]
    with pytest.raises(GenerationTimeout):
        await service.jobs.wait(job, 0.01)
    await engine.until_held()
    waiting[0].cancel()
    engine.release()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert [end.state for end in ends[1:]] == [JobState.SUCCEEDED] * 2


async def test_waiting_client_causes_no_previews(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    waiting = asyncio.create_task(finish(service, job))
    await engine.until_held()
    assert not engine.wants_previews(job.id)
    engine.release()
    assert (await waiting).state is JobState.SUCCEEDED


async def test_stop_answers_waiting_clients_with_draining(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        jobs = [await submit(service) for _ in range(LEASED + 2)]
        waiting = [asyncio.create_task(finish(service, job)) for job in jobs]
        await engine.until_held(LEASED)
    ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), LIMIT_S)
    assert [(type(end), end.job_id) for end in ends] == [(Draining, job.id) for job in jobs]
    assert all(end.retry_after_s > 0 and end.retryable is False for end in ends)


async def test_wait_after_store_is_closed_raises_draining(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
    with pytest.raises(Draining) as refused:
        await service.jobs.wait(job, 1.0)
    assert (refused.value.retry_after_s or 0) > 0


async def test_client_receives_job_that_ends_during_stop(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    waiting = asyncio.create_task(finish(service, job))
    await engine.until_held()
    engine.release()
    # The end of a job is published after its commit.
    async for _ in service.jobs.watch(job):
        continue
    service.lifecycle.drain()
    assert (await waiting).state is JobState.SUCCEEDED


async def test_closing_watches_does_not_end_wait(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    waiting = asyncio.create_task(finish(service, job))
    watch = aiter(service.jobs.watch(job))
    await engine.until_held()
    await anext(watch)
    service.lifecycle.close_watches()
    async for _ in watch:
        continue
    assert not waiting.done()
    engine.release()
    assert (await asyncio.wait_for(waiting, LIMIT_S)).state is JobState.SUCCEEDED


async def test_job_of_other_account_is_not_found(service: Service, owner: ApiKey) -> None:
    job = await finish(service, await submit(service, owner))
    for call in (service.jobs.get("stranger", job.id), service.jobs.remove("stranger", job.id)):
        with pytest.raises(JobNotFound):
            await call
    assert await service.jobs.page("stranger", JobFilter(), 10) == []


async def test_jobs_are_listed_newest_first(service: Service, owner: ApiKey) -> None:
    jobs = [await finish(service, await submit(service, owner)) for _ in range(3)]
    assert await service.jobs.page(owner.account_id, JobFilter(), 2) == [jobs[2], jobs[1]]


async def test_deleting_job_deletes_its_images(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    job = await finish(service, await submit(service, owner))
    [image] = (await service.images.of(job)).stored
    await service.jobs.remove(owner.account_id, job.id)
    with pytest.raises(JobNotFound):
        await service.jobs.get(owner.account_id, job.id)
    with pytest.raises(ImageNotFound):
        await service.images.find(owner.account_id, image.id)
    assert list((tmp_path / "images").iterdir()) == []


async def test_deleting_unfinished_job_is_refused(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.hold()
    job = await submit(service, owner)
    with pytest.raises(JobUnfinished):
        await service.jobs.remove(owner.account_id, job.id)
    engine.release()


def test_job_ids_sort_by_time() -> None:
    ids = [str(uuid7()) for _ in range(100)]
    assert ids == sorted(ids)
