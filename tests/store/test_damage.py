"""Damaged rows and files: each is skipped or refused in words, and hides no other."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.billing import LedgerFilter
from allaprima.domain.jobs import JobFilter
from allaprima.errors import StoreError
from allaprima.store.accounts import AccountRepository
from allaprima.store.clock import ClockRecord, ClockRepository
from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.database import Database
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.keys import KeyRepository
from allaprima.store.ledger import LedgerRepository
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.outbox import Outbox
from allaprima.store.sqlite import open_sqlite
from tests.clock import NOW
from tests.store.backends import open_migrated_sqlite
from tests.store.factories import new_entry, new_image, new_job, new_outcome
from tests.store.reaping import WORKER

DAMAGED = "'damaged'"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database of SQLite, which stores any value in any column; PostgreSQL refuses one of another type."""
    opened = await open_migrated_sqlite(tmp_path / "data")
    yield opened
    await opened.close()


async def damage(database: Database, table: str, column: str, row_id: str, value: str = DAMAGED) -> None:
    statement = f"UPDATE {table} SET {column} = {value} WHERE id = '{row_id}'"  # noqa: S608 - constants

    await database.write(lambda connection: connection.execute(text(statement)).rowcount)


async def finished(database: Database, owner: ApiKey) -> Any:
    """Store a finished job with an image; return the job and the image."""
    transitions, job = JobTransitions(database), new_job(owner)
    await transitions.admit(job, 10)
    leased = (await transitions.lease(WORKER, NOW)).job
    assert leased is not None
    image = new_image(job)
    await transitions.succeed(leased, NOW, new_outcome(image))
    return job, image


@pytest.mark.parametrize("column", ["created_at", "finished_at", "held", "request", "options", "state"])
async def test_damaged_job_hides_no_other(database: Database, owner: ApiKey, column: str) -> None:
    (damaged, _), (other, _) = [await finished(database, owner) for _ in range(2)]
    await damage(database, "jobs", column, damaged.id)
    jobs = JobRepository(database)
    assert [job.id for job in await jobs.page("account", JobFilter(), 10)] == [other.id]
    assert await jobs.get(damaged.id) is None


@pytest.mark.parametrize("column", ["expires_at", "seed", "size_bytes"])
async def test_damaged_image_hides_no_other(
    database: Database, owner: ApiKey, column: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (_, damaged), (job, other) = [await finished(database, owner) for _ in range(2)]
    await damage(database, "images", column, damaged.id)
    images = ImageRepository(database, LocalObjectStore(tmp_path / "images"))
    assert await images.find(damaged.id, NOW) is None
    assert f"skipped the unreadable row '{damaged.id}'" in caplog.text
    found = await JobRepository(database).images_of([damaged.job_id, job.id], NOW)
    assert [[image.id for image in of_job] for of_job in found.values()] == [[], [other.id]]


@pytest.mark.parametrize(("column", "value"), [("scopes", "'{'"), ("limit_period", DAMAGED), ("created_at", DAMAGED)])
async def test_damaged_key_opens_nothing_and_hides_no_other(
    database: Database, owner: ApiKey, column: str, value: str
) -> None:
    keys = KeyRepository(database)
    other = ApiKey(id="other", account_id="account", name="b", prefix="efgh5678", created_at=NOW, updated_at=NOW)
    await keys.add(other, "other hash")
    await damage(database, "api_keys", "limit_credits", owner.id, "1")
    await damage(database, "api_keys", column, owner.id, value)
    assert await keys.find_valid("hash") is None
    assert [key.id for key in await keys.all()] == ["other"]


async def test_damaged_account_is_named(database: Database, owner: ApiKey) -> None:
    accounts = AccountRepository(database)
    await accounts.add(Account("other", "other", NOW))
    await damage(database, "accounts", "balance", owner.account_id)
    assert [account.id for account in await accounts.all()] == ["other"]
    with pytest.raises(StoreError, match="the account account is damaged in the database: balance is str"):
        await accounts.get(owner.account_id)
    with pytest.raises(StoreError, match="the account unknown is missing"):
        await accounts.get("unknown")


async def test_damaged_ledger_entry_hides_no_other(database: Database, owner: ApiKey) -> None:
    accounts, entries = AccountRepository(database), [new_entry(5), new_entry(7)]
    for entry in entries:
        await accounts.post(owner.account_id, entry)
    await damage(database, "ledger", "direction", entries[0].id)
    found = await LedgerRepository(database).entries(owner.account_id, LedgerFilter(), None, 10)
    assert [entry.id for entry in found] == [entries[1].id]


async def test_damaged_endpoint_hides_no_other(database: Database, owner: ApiKey) -> None:
    transitions, outbox = JobTransitions(database), Outbox(database)
    for url in ("http://a.test/", "http://b.test/"):
        await transitions.admit(new_job(owner, webhook_url=url), 10)
    [first, second] = await outbox.endpoints(owner.account_id)
    await damage(database, "webhook_endpoints", "disabled_at", first.id)
    assert await outbox.endpoints(owner.account_id) == [second]
    assert await outbox.find(owner.account_id, first.url) is None


async def test_damaged_clock_counts_as_none(database: Database) -> None:
    records = ClockRepository(database)
    await records.save(ClockRecord("boot", 1.0, 0))
    await database.write(lambda connection: connection.execute(text("UPDATE clock SET shift = 'x'")).rowcount)
    assert await records.find() is None


async def test_damaged_schema_is_refused_in_a_sentence(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path)).close()
    path = tmp_path / DATABASE_FILE
    content = path.read_bytes()
    # SQLite's message about it quotes bytes that are no UTF-8.
    path.write_bytes(content.replace(b"CREATE TABLE accounts", b"CREATE T\xff\xfeLE accounts"))
    with pytest.raises(StoreError, match="is not a database that this version can use"):
        await open_sqlite(tmp_path)


async def test_failure_is_logged_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = await open_sqlite(tmp_path)
    with caplog.at_level(logging.ERROR), pytest.raises(StoreError):
        await database.read(lambda connection: connection.execute(text("SELECT secret FROM nowhere")).all())
    await database.close()
    assert [record.getMessage() for record in caplog.records] == ["the database failed: no such table: nowhere"]
    assert "Traceback" not in caplog.text
