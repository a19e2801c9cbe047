"""The PostgreSQL backend: its schema, what it retries, what it refuses, and when a commit is durable."""

import asyncio
import itertools
import logging
import shutil
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, func, insert, inspect, select, text, update

import allaprima.store.migrations
from allaprima.domain.accounts import ApiKey, LimitPeriod, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import ImageFilter
from allaprima.errors import DatabaseUnavailable, GenerationFailed, ImageNotFound, StoreError
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.dialect import Total
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from allaprima.store.migrations import HEAD
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.outbox import Outbox
from allaprima.store.postgres import connect, migrate, open_postgres
from allaprima.store.schema import accounts, installation, metadata
from allaprima.store.secret import open_secret
from tests.clock import NOW
from tests.store.backends import open_emptied_postgres, query
from tests.store.factories import new_entry, new_image, new_job, new_outcome
from tests.store.postgres_server import PostgresServer, server
from tests.store.reaping import WORKER, reap

#: A revision that the tests add after the newest.
TIER = '''
"""Add a column to the accounts."""

import sqlalchemy as sa
from alembic import op

revision = "9999_tier"
down_revision = "{head}"


def upgrade():
    op.add_column("accounts", sa.Column("tier", sa.String(), nullable=False, server_default="free"))
    {more}
'''
UNREACHABLE = "postgresql://allaprima:hunter2@127.0.0.1:1/store"
_numbers = itertools.count()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_emptied_postgres(tmp_path / "data")
    yield opened
    await opened.close()


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return server().create(f"empty-{next(_numbers)}")


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def add(connection: Connection, name: str) -> None:
    connection.execute(insert(accounts).values(id=name, name=name, created_at=1.0))


async def names(database: Database) -> list[str]:
    wanted = select(accounts.c.name).order_by(accounts.c.name)
    return await database.read(lambda connection: list(connection.execute(wanted).scalars()))


# The schema ---------------------------------------------------------------------------------------------------------


async def test_empty_database_gets_newest_schema(url: str) -> None:
    await (await open_postgres(url)).close()
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [(HEAD,)]


async def test_partial_indexes_have_their_conditions(database: Database) -> None:
    found = await query(database, "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '% WHERE %' ORDER BY 1")
    assert [name for (name,) in found] == [
        "ix_images_starred",
        "ix_jobs_order",
        "ix_jobs_order_of_key",
        "ix_jobs_running",
        "ix_jobs_start_by",
        "ix_jobs_urgency",
        "ix_jobs_waits_at",
        "ix_webhook_deliveries_done",
    ]


async def test_text_is_compared_by_its_bytes(database: Database) -> None:
    other = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> :stamp"
    other += " AND data_type = 'character varying' AND collation_name IS DISTINCT FROM 'C'"
    assert await query(database, other, stamp="alembic_version") == [(0,)]


async def test_concurrent_starts_create_one_schema(url: str) -> None:
    for database in await asyncio.gather(*(open_postgres(url) for _ in range(4))):
        await database.close()


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the migrations, to which a test adds a revision."""
    [source] = allaprima.store.migrations.__path__
    shutil.copytree(source, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "migrations"


def add_revision(migrations: Path, more: str = "") -> None:
    (migrations / "versions" / "9999_tier.py").write_text(TIER.format(head=HEAD, more=more))


def columns_of_accounts(url: str) -> set[str]:
    with connected(url) as connection:
        return {column["name"] for column in inspect(connection).get_columns("accounts")}


def test_later_revision_upgrades_a_database_with_rows(url: str, extended: Path) -> None:
    migrate(url)
    with connected(url) as connection:
        add(connection, "a")
    add_revision(extended)
    for _ in range(2):
        migrate(url, str(extended))
    with connected(url) as connection:
        assert connection.exec_driver_sql("SELECT name, tier FROM accounts").all() == [("a", "free")]
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [("9999_tier",)]


def test_failed_upgrade_changes_nothing(url: str, extended: Path) -> None:
    migrate(url)
    add_revision(extended, 'op.execute("SELECT 1 / 0")')
    with pytest.raises(StoreError, match="division by zero"):
        migrate(url, str(extended))
    assert "tier" not in columns_of_accounts(url)


async def test_other_schema_is_refused(url: str) -> None:
    migrate(url)
    with connected(url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999_of_later'")
    with pytest.raises(StoreError, match=rf"another version .* \(schema 9999_of_later; this version needs {HEAD}\)"):
        await open_postgres(url)
    with pytest.raises(StoreError, match="another version of allaprima wrote"):
        migrate(url)


async def test_database_of_another_program_is_refused_unchanged(url: str) -> None:
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE accounts (id TEXT)")
    with pytest.raises(StoreError, match="tables of another program"):
        await open_postgres(url)
    assert columns_of_accounts(url) == {"id"}


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mysql://a:hunter2@host/db", "postgresql://a:hunter2@host", "hunter2", ""])
async def test_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="must look like postgresql://") as caught:
        await open_postgres(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_unreachable_server_is_refused_without_password() -> None:
    url = UNREACHABLE
    with pytest.raises(StoreError, match=r"DATABASE_URL can't be used: connection to server .*refused") as caught:
        await open_postgres(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_missing_database_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match='database "missing" does not exist'):
        await open_postgres(server().url("missing"))


async def test_failed_statement_reveals_no_parameter(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    wrong = text("SELECT CAST(:value AS integer)")
    with pytest.raises(StoreError) as caught:
        await database.write(lambda connection: connection.execute(wrong, {"value": "x\nsecret prompt"}).all())
    assert "[SQL parameters hidden due to hide_parameters=True]" in str(caught.value.__cause__)


# Connections --------------------------------------------------------------------------------------------------------

LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.mark.parametrize("is_pooled", [True, False])
async def test_every_transaction_has_timeouts(url: str, is_pooled: bool) -> None:
    database = await open_postgres(url, is_pooled=is_pooled)
    shown = ", ".join(f"current_setting('{name}')" for name in LIMITS)
    for run in (database.write, database.write_hot, database.read):
        found = await run(lambda connection: connection.exec_driver_sql(f"SELECT {shown}").one())
        assert tuple(found) == ("10s", "5s", "30s")
    await database.compact()
    await database.close()


def test_pooled_connection_prepares_nothing_and_sets_nothing_for_its_session(url: str) -> None:
    engine = connect(url, is_pooled=True)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.prepare_threshold is None
        assert "options" not in driver.info.get_parameters()
        connection.rollback()
        driver.autocommit = True
        assert driver.execute("SHOW statement_timeout").fetchone() == ("0",)
    engine.dispose()


async def test_parameters_of_the_url_are_kept(url: str) -> None:
    database = await open_postgres(f"{url}?application_name=mine&options=-c%20work_mem%3D5MB")
    shown = "SELECT current_setting('application_name'), current_setting('work_mem')"
    found = await database.read(lambda connection: connection.exec_driver_sql(shown).one())
    assert tuple(found) == ("mine", "5MB")
    await database.close()


async def test_database_with_another_encoding_is_refused(url: str) -> None:
    name = f"latin-{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".encode())
    with pytest.raises(StoreError, match="a database with the encoding LATIN1, and allaprima needs UTF8"):
        await open_postgres(server().url(name))
    with connected(server().url(name)) as connection:
        assert inspect(connection).get_table_names() == []


async def test_role_that_only_reads_is_refused(url: str) -> None:
    await (await open_postgres(url)).close()
    name = f"reader{next(_numbers)}"
    server().add_role(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}".encode())
        connection.execute(f"ALTER ROLE {name} SET default_transaction_read_only TO on".encode())
    with pytest.raises(StoreError, match="a role or a server that only reads, and allaprima writes"):
        await open_postgres(url.replace("allaprima@", f"{name}@"))


async def test_processes_share_one_secret_of_32_bytes(url: str, tmp_path: Path) -> None:
    opened = [await open_postgres(url) for _ in range(3)]
    found = await asyncio.gather(*(open_secret(database, tmp_path / "none") for database in opened))
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    await opened[0].write(lambda connection: connection.execute(update(installation).values(secret=b"short")))
    with pytest.raises(StoreError, match="a secret of 5 bytes, not 32"):
        await open_secret(opened[0], tmp_path)
    for database in opened:
        await database.close()


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\0", "\ud800"])
async def test_text_that_postgresql_does_not_store_fails_no_statement(
    database: Database, tmp_path: Path, character: str
) -> None:
    objects = LocalObjectStore(tmp_path / "images")
    assert await ImageRepository(database, objects).page("account", ImageFilter(words=character), 10, NOW) == []
    await database.write(lambda connection: add(connection, f"a{character}b"))
    assert await names(database) == ["a\N{REPLACEMENT CHARACTER}b"]


async def test_nul_in_options_of_a_queued_job_does_not_stop_recovery(database: Database, owner: ApiKey) -> None:
    transitions = JobTransitions(database)
    for stores in (True, False):
        waits_at = None if stores else WORKER
        await transitions.admit(new_job(owner, client_request_id="a\0b", store=stores), 10, waits_at=waits_at)
    assert (await reap(database, 3, NOW)).requeued == 0
    assert await query(database, "SELECT state FROM jobs ORDER BY id") == [("queued",), ("cancelled",)]


async def test_sum_of_large_numbers_is_an_integer(database: Database) -> None:
    def fill(connection: Connection) -> None:
        for name in ("a", "b"):
            add(connection, name)
        connection.execute(update(accounts).values(balance=2**61))

    await database.write(fill)
    total = await database.read(lambda connection: connection.execute(select(Total(accounts.c.balance))).scalar_one())
    assert total == 2**62
    assert isinstance(total, int)


async def test_compacted_database_keeps_its_rows(database: Database) -> None:
    await database.write(lambda connection: add(connection, "a"))
    await database.compact()
    assert await names(database) == ["a"]


# Repetitions --------------------------------------------------------------------------------------------------------


async def test_deadlock_is_repeated(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def fill(connection: Connection) -> None:
        for name in ("a", "b"):
            add(connection, name)

    await database.write(fill)
    both = threading.Barrier(2)
    met: set[str] = set()

    def charge(first: str, second: str) -> Any:
        def transaction(connection: Connection) -> None:
            for name in (first, second):
                changed = update(accounts).where(accounts.c.id == name).values(balance=accounts.c.balance + 1)
                connection.execute(changed)
                if first not in met:
                    met.add(first)
                    both.wait(10)

        return transaction

    await asyncio.gather(database.write(charge("a", "b")), database.write(charge("b", "a")))
    assert await query(database, "SELECT balance FROM accounts") == [(2,), (2,)]
    assert "a transaction is repeated: deadlock detected" in caplog.text


def terminate(pid: int) -> None:
    with connected(server().url("postgres")) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")


@pytest.mark.parametrize("is_writing", [True, False])
async def test_lost_connection_is_repeated(database: Database, is_writing: bool) -> None:
    own, calls = select(func.pg_backend_pid()), []

    def transaction(connection: Connection) -> int:
        pid = connection.execute(own).scalar_one()
        calls.append(pid)
        if len(calls) == 1:
            terminate(pid)
        return connection.execute(own).scalar_one()

    found = await (database.write if is_writing else database.read)(transaction)
    assert calls[0] != calls[1] == found


async def test_server_that_stays_away_is_named_with_a_time_to_retry() -> None:
    own = PostgresServer()
    database = await open_postgres(own.create("store"))
    own.close()
    with pytest.raises(DatabaseUnavailable) as caught:
        await names(database)
    assert caught.value.retry_after_s == 5.0
    await database.close()


async def test_lost_connection_during_commit_is_not_repeated(database: Database) -> None:
    calls = []

    def transaction(connection: Connection) -> None:
        calls.append(1)
        add(connection, "a")
        pid = connection.execute(select(func.pg_backend_pid())).scalar_one()
        event.listen(connection, "commit", lambda _: terminate(pid))

    with pytest.raises(DatabaseUnavailable):
        await database.write(transaction)
    assert calls == [1]


async def test_failure_that_does_not_pass_is_not_repeated(database: Database) -> None:
    calls = []

    def transaction(connection: Connection) -> None:
        calls.append(1)
        connection.exec_driver_sql("SELECT 1 / 0")

    with pytest.raises(StoreError):
        await database.write(transaction)
    assert calls == [1]


# Durability ---------------------------------------------------------------------------------------------------------


async def lost_after_crash(own: PostgresServer, name: str, *, is_flushed: bool) -> int:
    """Acknowledge transactions until the server stops at once; return how many acknowledged rows are lost."""
    database = await open_postgres(own.create(name))
    acknowledged = [f"{number:03}" for number in range(100)]

    def add_unflushed(connection: Connection, number: str) -> None:
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
        add(connection, number)

    for number in acknowledged:
        if is_flushed:
            await database.write_hot(partial(add, name=number))
        else:
            await database.write(partial(add_unflushed, number=number))
    own.restart_at_once()
    kept = await names(database)
    await database.close()
    return len(set(acknowledged) - set(kept))


async def test_acknowledged_transaction_survives_a_crash_of_the_server() -> None:
    # The server's own flush of asynchronous commits would hide a missing one.
    own = PostgresServer(wal_writer_delay="10s")
    try:
        assert await lost_after_crash(own, "flushed", is_flushed=True) == 0
        # Without the flush the server loses some, or this test would show nothing.
        assert await lost_after_crash(own, "not-flushed", is_flushed=False) > 0
    finally:
        own.close()


# Locks --------------------------------------------------------------------------------------------------------------


async def test_concurrent_transactions_of_all_kinds_meet_no_deadlock(
    database: Database, owner: ApiKey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await AccountRepository(database).post(owner.account_id, new_entry(1000))
    transitions, keys, outbox = JobTransitions(database), KeyRepository(database), Outbox(database)
    images = ImageRepository(database, LocalObjectStore(tmp_path / "images"))
    limit = {"limit": SpendLimit(LimitPeriod.DAY, 900)}

    async def admit(number: int) -> None:
        url = f"https://hooks.example/{number % 3}" if number % 2 else None
        claim = IdempotencyClaim(f"{number // 2}", "same") if number % 4 < 2 else None
        job = new_job(owner, held=number % 3, webhook_url=url, client_request_id=f"{number}")
        await transitions.admit(job, 1000, claim)

    async def work(number: int) -> None:
        job = (await transitions.lease(WORKER, NOW)).job
        if job is None:
            return
        if number % 5 == 0:
            await transitions.fail(job, NOW, GenerationFailed("no"))
        else:
            stored = [new_image(job, position) for position in range(2)]
            outcome = new_outcome(*stored, credits_=job.held, fingerprint=f"{number % 3}")
            assert await transitions.succeed(job, NOW, outcome)
            await asyncio.gather(*(star(image.id) for image in stored), transitions.remove(job.id))

    async def star(image_id: str) -> None:
        with suppress(ImageNotFound):
            await images.star(owner.account_id, image_id, 10**6, NOW)
            await images.unstar(owner.account_id, image_id, NOW)

    async def change(number: int) -> None:
        await keys.change(owner.account_id, owner.prefix, limit, NOW)
        if number % 4 == 0:
            for endpoint in await outbox.endpoints(owner.account_id):
                await outbox.delete_endpoint(owner.account_id, endpoint.id)

    await asyncio.gather(*(step(number) for number in range(60) for step in (admit, work, change)))
    while (await transitions.lease(WORKER, NOW)).job is not None:
        pass
    await transitions.cancel_all(owner.account_id, NOW)
    assert "is repeated" not in caplog.text
    [(balance, held, image_bytes, spent, held_of_key)] = await query(
        database,
        "SELECT balance, accounts.held, image_bytes, spent, api_keys.held FROM accounts JOIN api_keys"
        " ON api_keys.account_id = accounts.id",
    )
    assert (balance, held, held_of_key, image_bytes) == (1000 - spent, 0, 0, 0)
    charged = "SELECT coalesce(sum(credits), 0) FROM"
    assert await query(database, f"{charged} usage_buckets UNION ALL {charged} usage") == [(spent,), (spent,)]
