"""A bucket that is away delays jobs and fails none; reads answer 503; the server stops promptly."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from allaprima.bootstrap import service as bootstrap
from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import JobState
from allaprima.errors import ImageStoreUnavailable
from allaprima.service.app import Service
from allaprima.service.jobs import cancellation, image_writer
from allaprima.service.jobs.runner import MAX_STORING
from allaprima.store.objects.local import LocalObjectStore
from tests.both_databases import on_postgresql_alone
from tests.fakes import FakeClock, FakeEngine, client_of, ended, open_service
from tests.seaweed import Seaweed
from tests.service.jobs.submitting import REQUEST, finish, rows, submit
from tests.waiting import eventually

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}


@on_postgresql_alone
async def test_outage_delays_jobs_and_fails_none_and_stop_is_prompt(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, seaweed: Seaweed, bucket_url: str
) -> None:
    """One outage serves both promises, since the bucket's server takes long to start again."""
    stopped = {"store": {"bucket": seaweed.address()}}
    async with open_service(tmp_path / "a", engine, clock, store={"bucket": bucket_url}) as service:
        client = client_of(service, key=service.first_key)
        [before] = (await client.post("/v1/images/generations", json=BODY | {"seed": 99})).json()["images"]
        async with open_service(tmp_path / "b", FakeEngine(), clock, **stopped) as other:
            seaweed.kill()
            answer = await client_of(other, key=other.first_key).post("/v1/jobs", json=BODY)
            kept_id = answer.json()["id"]
            jobs = [await client.post("/v1/jobs", json=BODY | {"seed": seed}) for seed in range(8)]
            answer = await client.get(before["url"])
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "can't be reached" in answer.text
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 10
        await asyncio.to_thread(seaweed.start)
        for submitted in jobs:
            job = await ended(service, submitted.json()["id"])
            assert (job.state, job.crashes, job.attempt) == (JobState.SUCCEEDED, 0, 1)
            [image] = (await service.images.of(job)).stored
            found = await service.images.read(image.id)
            assert found is not None
            assert hashlib.sha256(found[1]).hexdigest() == image.sha256
        assert (await client.get(before["url"])).status_code == 200
    async with open_service(tmp_path / "b", FakeEngine(), clock, **stopped) as other:
        job = await ended(other, kept_id)
        assert (job.state, job.crashes) == (JobState.SUCCEEDED, 0)


class SwitchedStore(LocalObjectStore):
    """A folder that can be away, as a bucket can, and counts what was tried meanwhile."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_away = False
        self.puts = self.probes = 0

    async def put(self, name: str, data: bytes) -> None:
        if self.is_away:
            self.puts += 1
            raise ImageStoreUnavailable
        await super().put(name, data)

    async def is_available(self) -> bool:
        self.probes += self.is_away
        return not self.is_away


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SwitchedStore:
    """The service's image store, which is away."""
    objects = SwitchedStore(tmp_path / "images")
    objects.is_away = True

    async def open_objects(*_: object, **__: object) -> SwitchedStore:
        return objects

    monkeypatch.setattr(bootstrap, "open_objects", open_objects)
    monkeypatch.setattr(image_writer, "RETRY_S", 0.01)
    return objects


async def test_job_whose_image_waited_longest_time_is_generated_again_when_the_store_answers(
    store: SwitchedStore, service: Service, owner: ApiKey, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_writer, "MAX_WAIT_S", 0.05)
    job = await submit(service, owner)
    await eventually(lambda: store.probes > 5)
    waiting = await service.jobs.get(owner.account_id, job.id)
    assert (waiting.state, waiting.attempt, waiting.crashes) == (JobState.QUEUED, 1, 0)
    # While the store is away no job is leased, so none is generated for nothing.
    second = await submit(service, owner, REQUEST.changed(seed=8))
    probes = store.probes
    await eventually(lambda: store.probes > probes + 5)
    assert set(engine.requests) == {job.id}
    store.is_away = False
    done = await finish(service, job)
    assert (done.state, done.attempt, done.crashes) == (JobState.SUCCEEDED, 2, 0)
    assert len((await service.images.of(done)).stored) == 1
    assert (await finish(service, second)).attempt == 1


async def test_outage_is_over_for_all_jobs_when_one_image_is_stored(
    store: SwitchedStore, service: Service, owner: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await submit(service, owner)
    await eventually(lambda: store.puts)
    # The second image waits for the longest time at once.
    monkeypatch.setattr(image_writer, "MAX_WAIT_S", 0.0)
    second = await submit(service, owner, REQUEST.changed(seed=8))
    await eventually(lambda: store.probes)
    store.is_away = False
    assert [(await finish(service, job)).state for job in (first, second)] == [JobState.SUCCEEDED] * 2


async def test_cancelling_ends_jobs_whose_images_wait_for_the_store_at_once(
    store: SwitchedStore, service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    jobs = [await submit(service, owner, REQUEST.changed(seed=seed)) for seed in range(MAX_STORING + 1)]
    await eventually(lambda: len(engine.requests) == len(jobs) and store.puts > MAX_STORING)
    # One of them waits for its turn to be stored.
    began = asyncio.get_running_loop().time()
    for job in reversed(jobs):
        assert (await service.cancellation.cancel(owner.account_id, job.id)).state is JobState.CANCELLED
    assert asyncio.get_running_loop().time() - began < cancellation.CONFIRM_TIMEOUT_S
    assert rows(tmp_path, "SELECT sum(images), sum(credits) FROM usage") == [(0, 0)]
    store.is_away = False
    assert (await finish(service, await submit(service, owner))).state is JobState.SUCCEEDED


async def test_server_that_stops_while_the_store_is_away_keeps_the_job(
    store: SwitchedStore, engine: FakeEngine, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_writer, "MAX_WAIT_S", 0.0)
    async with open_service(tmp_path, engine, clock) as service:
        job = await submit(service)
        await eventually(lambda: store.probes)
    assert rows(tmp_path, "SELECT state, attempt, crashes FROM jobs") == [("queued", 1, 0)]
    store.is_away = False
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert (await finish(service, job)).state is JobState.SUCCEEDED
