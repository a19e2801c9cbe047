"""A bucket that is away delays jobs and fails none; reads answer 503; the server stops promptly."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from allaprima.domain.jobs import JobState
from allaprima.errors import ImageStoreUnavailable
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.image_writer import ImageWriter
from allaprima.service.jobs.signal import MemoryQueueSignal
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.images import ImageRepository
from tests.both_databases import on_postgresql_alone
from tests.fakes import FakeClock, FakeEngine, client_of, ended, open_service
from tests.seaweed import Seaweed

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


class AbsentImages(ImageRepository):
    """An image store that is away."""

    def __init__(self) -> None:
        self.attempts = 0

    async def put(self, object_name: str, data: bytes) -> None:
        self.attempts += 1
        raise ImageStoreUnavailable


async def test_image_that_waited_longest_time_is_given_up(clock: FakeClock) -> None:
    images = AbsentImages()
    writer = ImageWriter(images, Lifecycle(MemoryEventBus(clock, clock), MemoryQueueSignal()), max_wait_s=0.5)
    with pytest.raises(ImageStoreUnavailable):
        await writer.write("a.png", b"image")
    assert images.attempts == 2
