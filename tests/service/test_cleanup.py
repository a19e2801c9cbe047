"""Cleanup of expired images, orphaned files, idempotency records and old webhook deliveries."""

import os
from dataclasses import replace
from pathlib import Path

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.service.cleanup import JOBS_AT_ONCE
from allaprima.store.idempotency import RETENTION_S
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import finish, rows, submission, submit
from tests.waiting import eventually

HOUR_S = 3600


async def test_expired_images_are_removed_at_start(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock, store={"image_ttl_s": 60}) as service:
        [image] = (await service.images.of(await finish(service, await submit(service)))).stored
        assert (tmp_path / "images" / image.object_name).exists()
    clock.now += 60
    async with open_service(tmp_path, FakeEngine(), clock, store={"image_ttl_s": 60}) as service:
        fresh = (await service.images.of(await finish(service, await submit(service)))).stored
    assert {path.name for path in (tmp_path / "images").iterdir()} == {fresh[0].object_name}


async def test_expired_images_are_removed_while_server_runs(tmp_path: Path, clock: FakeClock) -> None:
    settings = {"image_ttl_s": 60, "sweep_every_s": 0.01}
    async with open_service(tmp_path, FakeEngine(), clock, store=settings) as service:
        await finish(service, await submit(service))
        clock.now += 60
        await eventually(lambda: not list((tmp_path / "images").iterdir()))


async def test_finished_jobs_are_removed_after_their_time(tmp_path: Path, clock: FakeClock) -> None:
    engine = FakeEngine()
    async with open_service(tmp_path, engine, clock) as service:
        for _ in range(JOBS_AT_ONCE + 1):
            job = await submit(service)
        await finish(service, job)
        clock.now += 100
        late = await finish(service, await submit(service))
        engine.hold()
        waiting = await submit(service)
    clock.now += 100
    async with open_service(tmp_path, engine := FakeEngine(), clock, store={"job_ttl_s": 150}) as service:
        await eventually(lambda: len(rows(tmp_path, "SELECT id FROM jobs")) == 2)
        await finish(service, waiting)
    assert {job_id for (job_id,) in rows(tmp_path, "SELECT id FROM jobs")} == {late.id, waiting.id}
    assert rows(tmp_path, "SELECT count(*) FROM usage") == [(JOBS_AT_ONCE + 3,)]
    assert len(list((tmp_path / "images").iterdir())) == 2


async def test_staged_files_of_killed_server_are_removed_at_start(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "images").mkdir()
    for name in ("0198.png#1", "0198.png#23", "0198.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    async with open_service(tmp_path, FakeEngine(), clock):
        assert [path.name for path in (tmp_path / "images").iterdir()] == ["0198.png"]


async def test_old_files_without_row_are_removed(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock):
        pass
    for name, age_s in (("old.png", 2 * HOUR_S), ("new.png", 0)):
        (tmp_path / "images" / name).write_bytes(b"x")
        os.utime(tmp_path / "images" / name, (clock.now - age_s,) * 2)
    async with open_service(tmp_path, FakeEngine(), clock):
        await eventually(lambda: [path.name for path in (tmp_path / "images").iterdir()] == ["new.png"])


async def test_expired_idempotency_records_are_removed(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        owner = (await service.keys.all())[0]
        claim = IdempotencyClaim("key", "fingerprint")
        await finish(service, await service.admission.submit(replace(submission(owner), claim=claim)))
    for passed_s, left in ((RETENTION_S - 1, 1), (1, 0)):
        clock.now += passed_s
        async with open_service(tmp_path, FakeEngine(), clock):
            await eventually(lambda left=left: rows(tmp_path, "SELECT count(*) FROM idempotency_records") == [(left,)])
