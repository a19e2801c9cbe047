"""Cleanup of expired images, orphaned files, idempotency records and old webhook deliveries."""

import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.service.cleanup import JOBS_AT_ONCE, Cleaner
from allaprima.settings import StoreSettings
from allaprima.store.accounts import AccountRepository
from allaprima.store.idempotency import RETENTION_S, IdempotencyRepository
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.objects.open import open_objects
from allaprima.store.outbox import RETENTION_S as WEBHOOK_RETENTION_S
from allaprima.store.outbox import DeliveryLimits, Outbox
from tests.both_databases import on_postgresql_alone, on_sqlite_alone
from tests.clock import NOW
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import finish, rows, submission, submit
from tests.store.backends import count, open_emptied_postgres, query
from tests.store.factories import new_image, new_job, new_outcome
from tests.store.reaping import WORKER, register
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


@on_sqlite_alone
async def test_start_of_server_removes_no_file_that_another_writes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    now = time.time()
    for name, age_s in (("0198.png#1", 0), ("0199.png#1", HOUR_S + 1)):
        (tmp_path / "images" / name).write_bytes(b"x")
        os.utime(tmp_path / "images" / name, (now - age_s, now - age_s))
    shared = StoreSettings(data_dir=tmp_path, database_url=SecretStr("postgresql://db.example/allaprima"))
    await open_objects(shared)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["0198.png#1"]


@on_postgresql_alone
async def test_servers_that_clean_at_the_same_time_remove_everything_once(tmp_path: Path) -> None:
    """Eight cleaners on one PostgreSQL database; the account's bytes show that no image is subtracted twice."""
    database = await open_emptied_postgres(tmp_path / "data")
    transitions, outbox, folder = JobTransitions(database), Outbox(database), LocalObjectStore(tmp_path / "images")
    await register(database)
    await AccountRepository(database).add(Account("account", "default", NOW))
    owner = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
    await KeyRepository(database).add(owner, "hash")
    kept = []
    for number in range(12):
        claim = IdempotencyClaim(f"once-{number}", "fingerprint")
        await transitions.admit(new_job(owner, webhook_url="https://hooks.example/a"), 1000, claim)
        job = (await transitions.lease(WORKER, NOW)).job
        assert job is not None
        image = new_image(job, object_name=f"{job.id}.png", expires_at=NOW + (HOUR_S if number % 2 else 1e9))
        image = replace(image, id=job.id)
        await folder.put(image.object_name, b"x" * image.size_bytes)
        await transitions.succeed(job, NOW, new_outcome(image))
        kept += [] if number % 2 else [image]
    for delivery in await outbox.lease_due(NOW, DeliveryLimits(100, 100, 100)):
        await outbox.delivered(delivery, NOW)
    later = NOW + max(RETENTION_S, WEBHOOK_RETENTION_S) + 1
    settings = StoreSettings(data_dir=tmp_path)
    async with AsyncExitStack() as stack:
        for _ in range(8):
            images = ImageRepository(database, LocalObjectStore(tmp_path / "images"))
            records, clock = IdempotencyRepository(database), FakeClock(later)
            cleaner = Cleaner(transitions, images, records, outbox, clock, settings)
            await stack.enter_async_context(cleaner.running())
        await eventually(lambda: len(list((tmp_path / "images").iterdir())) == len(kept))
    assert {path.name for path in (tmp_path / "images").iterdir()} == {image.object_name for image in kept}
    assert await count(database, "images") == len(kept)
    assert await count(database, "idempotency_records") == await count(database, "webhook_deliveries") == 0
    assert await query(database, "SELECT image_bytes FROM accounts") == [(sum(image.size_bytes for image in kept),)]
    await database.close()


@on_sqlite_alone
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
