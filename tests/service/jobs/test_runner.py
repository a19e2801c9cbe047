"""One leased job: generated, stored and ended once."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import ImageFormat, Timings
from allaprima.domain.jobs import Job, JobOutcome, JobResult, JobState
from allaprima.errors import Error, GenerationFailed, ImageNotFound, StoreError
from allaprima.service.app import Service
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.jobs.signal import MemoryQueueSignal
from allaprima.service.lifecycle import Lifecycle
from tests.fakes import FakeClock, FakeEngine
from tests.service.jobs.submitting import LEASED, REQUEST, finish, rows, submit
from tests.service.jobs.test_queue import new_job


async def test_job_ends_with_its_images(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    request = REQUEST.changed(count=3, image_format=ImageFormat.WEBP)
    engine.flagged = frozenset({1})
    engine.warnings = ("the prompt was cut",)
    done = await finish(service, await submit(service, owner, request))
    assert (done.state, done.attempt, done.finished_at, done.request) == (JobState.SUCCEEDED, 1, clock.now, request)
    assert done.result == JobResult(
        model="allaprima/sketch",
        revision="5" * 40,
        precision="fp32",
        credits=0,
        timings=Timings(text=0.25, steps=(0.125,) * 4, decode=0.5, safety=0.0625, encode=0.03125),
        warnings=("the prompt was cut",),
    )
    images = (await service.images.of(done)).stored
    generated = engine.generate(request).images
    assert [(image.position, image.seed, image.is_flagged, image.nsfw_score) for image in images] == [
        (0, 7, False, 0.01),
        (1, 8, True, 0.99),
        (2, 9, False, 0.01),
    ]
    for image, expected in zip(images, generated, strict=True):
        assert await service.images.read(image.id) == (image, expected.data)
        assert image.sha256 == hashlib.sha256(expected.data).hexdigest()
        assert image.size_bytes == len(expected.data)
        assert image.content_type == "image/webp"
        assert image.expires_at == clock.now + 7 * 86400
        assert (tmp_path / "images" / image.object_name).read_bytes() == expected.data


async def test_request_warnings_precede_engine_warnings(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.warnings = ("the prompt was cut",)
    done = await finish(service, await submit(service, owner, warnings=("style has no effect",)))
    assert done.result is not None
    assert done.result.warnings == ("style has no effect", "the prompt was cut")


async def test_withheld_images_are_not_charged(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.flagged = frozenset({0})
    job = await finish(service, await submit(service, owner, REQUEST.changed(count=4, width=512, height=1024)))
    assert rows(tmp_path, "SELECT job_id, key_id, model, images, megapixels, credits FROM usage") == [
        (job.id, owner.id, "allaprima/sketch", 3, 3 * 512 * 1024 / 1e6, 0)
    ]


async def test_concurrent_jobs_are_each_charged_once(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    async def generate(seed: int) -> Job:
        return await finish(service, await submit(service, owner, REQUEST.changed(seed=seed)))

    done = await asyncio.gather(*(generate(seed) for seed in range(60)))
    assert all(job.state is JobState.SUCCEEDED and job.attempt == 1 for job in done)
    assert [job.request.seed for job in done] == list(range(60))
    assert len(engine.requests) == 60
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM usage") == [(60, 60)]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT job_id) FROM images") == [(60, 60)]
    found = await service.images.of_all(done)
    assert [[image.seed for image in found[job.id].stored] for job in done] == [[seed] for seed in range(60)]


async def test_engine_failure_fails_job_with_reason(
    service: Service, owner: ApiKey, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    engine.failure = GenerationFailed("the colours ran out")
    failed = await finish(service, await submit(service, owner))
    assert (failed.state, failed.error_code, failed.error_message, failed.finished_at) == (
        JobState.FAILED,
        "generation_failed",
        "the colours ran out",
        clock.now,
    )
    with pytest.raises(ImageNotFound):
        await service.images.of(failed)
    assert rows(tmp_path, "SELECT state, images, credits FROM usage") == [("failed", 0, 0)]


async def test_job_after_failed_job_succeeds(service: Service, owner: ApiKey, engine: FakeEngine) -> None:
    engine.failure = GenerationFailed()
    for _ in range(LEASED + 1):
        assert (await finish(service, await submit(service, owner))).state is JobState.FAILED
    engine.failure = None
    assert (await finish(service, await submit(service, owner))).state is JobState.SUCCEEDED


async def test_job_cancelled_by_engine_is_cancelled(
    service: Service, owner: ApiKey, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold()
    job = await submit(service, owner)
    await engine.until_held()
    engine.cancel(job.id)
    assert (await finish(service, job)).state is JobState.CANCELLED
    assert rows(tmp_path, "SELECT state, images, credits FROM usage") == [("cancelled", 0, 0)]
    assert rows(tmp_path, "SELECT compute_s > 0 FROM usage UNION ALL SELECT compute_s > 0 FROM usage_buckets") == [
        (1,),
        (1,),
    ]


async def test_usage_has_compute_seconds_of_engine(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    for use_cache in (False, True):
        await finish(service, await submit(service, owner, use_cache=use_cache))
    generated = 0.25 + 4 * 0.125 + 0.5 + 0.0625 + 0.03125
    assert rows(tmp_path, "SELECT compute_s FROM usage ORDER BY compute_s") == [(0.0,), (generated,)]
    assert rows(tmp_path, "SELECT compute_s FROM usage_buckets") == [(generated,)]


async def test_failed_image_write_fails_only_its_job(service: Service, owner: ApiKey, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.rmdir()
    folder.write_bytes(b"a file in place of the folder")
    for _ in range(LEASED + 1):
        failed = await finish(service, await submit(service, owner))
        assert failed.state is JobState.FAILED
        assert failed.error_message is not None
        assert "could not be written" in failed.error_message
    folder.unlink()
    folder.mkdir()
    assert (await finish(service, await submit(service, owner))).state is JobState.SUCCEEDED
    assert rows(tmp_path, "SELECT count(*) FROM usage WHERE images > 0") == [(1,)]


# With a store that fails --------------------------------------------------------------------------------------------


class FakeTransitions:
    """Records the transitions of one job; the ones named in `failing` raise `StoreError`."""

    def __init__(self, lifecycle: Lifecycle, *failing: str) -> None:
        self.done: list[str] = []
        self.tried = asyncio.Event()
        self._lifecycle = lifecycle
        self._failing = failing

    async def _move(self, name: str) -> bool:
        self.tried.set()
        if name in self._failing:
            raise StoreError
        self.done.append(name)
        return True

    async def succeed(self, _job: Job, _now: float, _outcome: JobOutcome) -> bool:
        return await self._move("succeed")

    async def fail(self, _job: Job, _now: float, _error: Error, _compute_s: float) -> bool:
        return await self._move("fail")

    async def cancel(self, _job: Job, _now: float, _compute_s: float) -> bool:
        return await self._move("cancel")

    async def requeue(self, _job: Job) -> None:
        await self._move("requeue")

    def recover(self) -> None:
        self._failing = ()


class FakeResults:
    """Stores nothing."""

    async def store(self, *_: object) -> None:
        return None

    def abandon(self, _job_id: str) -> None:
        """There is no delivery."""


class FakeReporter:
    """Records ends."""

    def __init__(self) -> None:
        self.ends: list[JobState] = []

    def progress(self, _job: Job) -> "FakeReporter":
        return self

    def started(self, *_: object) -> None:
        """Not recorded."""

    def generated(self, *_: object) -> None:
        """Not recorded."""

    def stored(self, *_: object) -> None:
        """Not recorded."""

    def step(self, *_: object) -> None:
        """Not recorded."""

    def wants_previews(self) -> bool:
        return False

    def ended(self, _job_id: str, state: JobState) -> None:
        self.ends.append(state)


class Harness:
    """A runner over fakes."""

    def __init__(self, clock: FakeClock, *failing: str) -> None:
        self.engine = FakeEngine()
        self.engine.hold()
        self.lifecycle = Lifecycle(MemoryEventBus(clock, clock), MemoryQueueSignal())
        self.transitions = FakeTransitions(self.lifecycle, *failing)
        self.reporter = FakeReporter()
        self.eta = Eta(1, clock)
        self.runner = JobRunner(
            self.engine, self.transitions, FakeResults(), self.reporter, self.eta, self.lifecycle, clock
        )
        self.job = new_job()
        self.releases = 0

    async def run(self) -> "asyncio.Task[None]":
        await self.runner.accept(self.job)
        return asyncio.create_task(self.runner.run(self.job, self._release))

    def _release(self) -> None:
        self.releases += 1


@pytest.fixture
def harness(clock: FakeClock) -> Callable[..., Harness]:
    return lambda *failing: Harness(clock, *failing)


async def test_failed_write_is_repeated_until_store_recovers(harness: Callable[..., Harness]) -> None:
    found = harness("succeed")
    running = await found.run()
    await found.engine.until_held()
    found.engine.finish(found.job.id)
    await found.transitions.tried.wait()
    assert found.transitions.done == []
    found.transitions.recover()
    await running
    assert (found.transitions.done, found.reporter.ends) == (["succeed"], [JobState.SUCCEEDED])


async def test_result_not_stored_at_stop_is_generated_again(
    harness: Callable[..., Harness],
) -> None:
    found = harness("succeed")
    running = await found.run()
    await found.engine.until_held()
    found.lifecycle.drain()
    found.engine.finish(found.job.id)
    await running
    assert (found.transitions.done, found.reporter.ends) == (["requeue"], [])


async def test_job_stays_running_if_store_fails_at_stop(
    harness: Callable[..., Harness],
) -> None:
    found = harness("succeed", "fail", "requeue")
    running = await found.run()
    await found.engine.until_held()
    found.lifecycle.drain()
    found.engine.finish(found.job.id)
    with pytest.raises(StoreError):
        await running
    assert (found.transitions.done, found.reporter.ends, found.runner.jobs) == ([], [], [])


async def test_job_cancelled_before_start_never_reaches_engine(
    harness: Callable[..., Harness],
) -> None:
    found = harness()
    running = await found.run()
    found.runner.cancel(found.job.id)
    await running
    assert (found.engine.requests, found.transitions.done) == ({}, ["cancel"])
    assert found.reporter.ends == [JobState.CANCELLED]


async def test_job_cancelled_before_the_answer_to_its_lease_never_reaches_engine(
    harness: Callable[..., Harness],
) -> None:
    found = harness()
    assert not found.runner.cancel(found.job.id)
    await (await found.run())
    assert (found.engine.requests, found.transitions.done) == ({}, ["cancel"])


async def test_stop_requeues_accepted_job(
    harness: Callable[..., Harness],
) -> None:
    found = harness()
    running = await found.run()
    found.lifecycle.drain()
    await running
    assert (found.engine.requests, found.transitions.done, found.reporter.ends) == ({}, ["requeue"], [])
    assert found.releases > 0


async def test_job_is_accepted_again_when_its_earlier_attempt_has_ended(harness: Callable[..., Harness]) -> None:
    found = harness()
    running = await found.run()
    again = replace(found.job, attempt=2)
    waiting = asyncio.create_task(found.runner.accept(again))
    await found.engine.until_held()
    assert (waiting.done(), found.runner.jobs) == (False, [found.job])
    found.engine.finish(found.job.id)
    await running
    await waiting
    assert found.runner.jobs == [again]


async def test_runner_holds_job_from_acceptance_to_end(harness: Callable[..., Harness]) -> None:
    found = harness()
    running = await found.run()
    assert found.runner.jobs == [found.job]
    await found.engine.until_held()
    found.engine.finish(found.job.id)
    await running
    assert found.runner.jobs == []
