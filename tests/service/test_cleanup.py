"""Cleanup of expired images, orphaned files, idempotency records and old webhook deliveries."""

import os
from dataclasses import replace
from pathlib import Path

from allaprima.domain.idempotency import IdempotencyClaim
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
