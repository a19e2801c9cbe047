"""Results of jobs with `store=false`: never stored, delivered once, and charged only when delivered."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.service.app import Service
from allaprima.service.jobs.ephemeral import MemoryEphemeralResults
from allaprima.store.job_transitions import NOT_STORED
from tests.fakes import FakeEngine
from tests.service.jobs.submitting import LIMIT_S, REQUEST, finish, rows, submit
from tests.service.jobs.test_queue import new_job

JOB, RESULT = new_job(), FakeEngine().generate(REQUEST)


@dataclass
class Offer:
    """A runner's offer of a result, in a task of its own."""

    results: MemoryEphemeralResults
    is_delivered: bool | None = None
    is_stored: bool = False

    async def run(self) -> None:
        """Offer the result; store the end of the job, which takes a moment."""
        async with self.results.offer(JOB, RESULT) as self.is_delivered:
            await asyncio.sleep(0.01)
            self.is_stored = True


async def test_confirmation_returns_after_end_of_job_is_stored() -> None:
    results = MemoryEphemeralResults()
    offer = Offer(results)
    delivery, offering = results.delivery(JOB.id), asyncio.create_task(offer.run())
    received = await delivery.result
    assert (received.job, received.result) == (JOB, RESULT)
    assert delivery.progress()
    await delivery.confirm()
    assert (offer.is_delivered, offer.is_stored) == (True, True)
    await offering
    assert len(results) == 0


async def test_result_may_be_offered_before_its_response_waits() -> None:
    results = MemoryEphemeralResults()
    offer = Offer(results)
    offering = asyncio.create_task(offer.run())
    await asyncio.sleep(0)
    delivery = results.delivery(JOB.id)
    assert (await delivery.result).result == RESULT
    await delivery.confirm()
    await offering
    assert offer.is_delivered


async def test_abandoned_delivery_fails_at_once() -> None:
    results = MemoryEphemeralResults()
    offer = Offer(results)
    delivery, offering = results.delivery(JOB.id), asyncio.create_task(offer.run())
    await delivery.result
    delivery.abandon()
    await asyncio.wait_for(offering, LIMIT_S)
    assert offer.is_delivered is False
    assert len(results) == 0


async def test_delivery_fails_after_time_without_progress() -> None:
    results = MemoryEphemeralResults(timeout_s=0.05)
    offer = Offer(results)
    delivery = results.delivery(JOB.id)
    await offer.run()
    assert offer.is_delivered is False
    assert not delivery.progress()
    # A confirmation that comes too late changes nothing.
    await delivery.confirm()
    assert (offer.is_delivered, len(results)) == (False, 0)


async def test_progress_extends_delivery() -> None:
    results = MemoryEphemeralResults(timeout_s=0.5)
    offer = Offer(results)
    delivery, offering = results.delivery(JOB.id), asyncio.create_task(offer.run())
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert delivery.progress()
    await delivery.confirm()
    await offering
    assert offer.is_delivered


async def test_confirmation_commits_job_and_stores_no_image(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    job = await submit(service, owner, store=False)
    delivery = service.ephemeral.delivery(job.id)
    received = await delivery.result
    assert received.result == engine.generate(REQUEST)
    assert (await service.jobs.get(owner.account_id, job.id)).state == JobState.RUNNING
    assert rows(tmp_path, "SELECT count(*) FROM usage WHERE images > 0") == [(0,)]
    await delivery.confirm()
    done = await service.jobs.get(owner.account_id, job.id)
    assert (done.state, done.result, done.request.prompt) == (JobState.SUCCEEDED, received.job.result, NOT_STORED)
    assert rows(tmp_path, "SELECT images FROM usage") == [(1,)]
    assert list((tmp_path / "images").iterdir()) == []
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(0,)]


async def test_abandoned_job_is_cancelled_and_not_charged(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    job = await submit(service, owner, store=False)
    delivery = service.ephemeral.delivery(job.id)
    await delivery.result
    delivery.abandon()
    done = await finish(service, job)
    assert (done.state, done.request.prompt) == (JobState.CANCELLED, NOT_STORED)
    assert rows(tmp_path, "SELECT images, credits FROM usage") == [(0, 0)]


async def test_undelivered_result_does_not_delay_other_jobs(service: Service, owner: ApiKey) -> None:
    undelivered = [await submit(service, owner, REQUEST.changed(seed=seed), store=False) for seed in range(8)]
    done = await finish(service, await submit(service, owner))
    assert done.state == JobState.SUCCEEDED
    for job in undelivered:
        service.ephemeral.delivery(job.id).abandon()


async def test_cancellation_ends_job_whose_result_waits_for_its_client(service: Service, owner: ApiKey) -> None:
    job = await submit(service, owner, store=False)
    delivery = service.ephemeral.delivery(job.id)
    await delivery.result
    cancelled = await service.cancellation.cancel(owner.account_id, job.id)
    assert cancelled.state == JobState.CANCELLED
    # The response finds that the delivery has failed.
    assert not delivery.progress()


@pytest.mark.parametrize("count", [1, 3])
async def test_images_that_are_stored_are_read_each_time(service: Service, owner: ApiKey, count: int) -> None:
    done = await finish(service, await submit(service, owner, REQUEST.changed(count=count)))
    first, again = [await service.images.of(done) for _ in range(2)]
    assert first == again
    assert (first.ephemeral, len(first.stored)) == (None, count)
