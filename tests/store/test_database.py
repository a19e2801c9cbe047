"""The database: one writer that loses nothing, readers that can't write, one server, and a schema that is migrated."""

import asyncio
import datetime as dt
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, insert, inspect, select
from sqlalchemy.exc import IntegrityError

from allaprima.errors import StoreError, StoreLocked
from allaprima.store.database import DATABASE_FILE, Database, migrate, open_database
from allaprima.store.schema import accounts, keys, metadata


def pragma(name: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


async def add(database: Database, name: str) -> None:
    await database.write(account(name))


def account(name: str) -> Callable[[Connection], None]:
    def transaction(connection: Connection) -> None:
        connection.execute(insert(accounts).values(id=name, name=name, created_at=1.0))

    return transaction


async def names(database: Database) -> list[str]:
    wanted = select(accounts.c.name).order_by(accounts.c.name)
    return await database.read(lambda connection: list(connection.execute(wanted).scalars()))


# Connections --------------------------------------------------------------------------------------------------------


async def test_the_writer_keeps_a_commit_through_a_power_cut(database: Database) -> None:
    assert await database.write(pragma("journal_mode")) == "wal"
    assert await database.write(pragma("synchronous")) == 2  # FULL
    assert await database.write(pragma("foreign_keys")) == 1


async def test_a_reader_can_not_write(database: Database) -> None:
    assert await database.read(pragma("query_only")) == 1
    with pytest.raises(StoreError):
        await database.read(account("a"))
    assert await names(database) == []


async def test_a_reader_never_checkpoints(database: Database) -> None:
    assert await database.read(pragma("wal_autocheckpoint")) == 0


async def test_what_is_committed_is_read_at_once(database: Database) -> None:
    await add(database, "a")
    assert await names(database) == ["a"]


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def fail(connection: Connection) -> None:
        account("a")(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(fail)
    assert await names(database) == []
    await add(database, "b")
    assert await names(database) == ["b"]


async def test_a_reader_sees_no_unfinished_transaction(database: Database) -> None:
    is_written, may_commit = threading.Event(), threading.Event()

    def dawdle(connection: Connection) -> None:
        account("a")(connection)
        is_written.set()
        assert may_commit.wait(10)

    writing = asyncio.create_task(database.write(dawdle))
    await asyncio.to_thread(is_written.wait)
    assert await names(database) == []
    may_commit.set()
    await writing
    assert await names(database) == ["a"]


async def test_a_transaction_goes_on_when_nobody_waits_for_it_any_more(database: Database) -> None:
    is_begun, may_commit = threading.Event(), threading.Event()

    def dawdle(connection: Connection) -> None:
        is_begun.set()
        assert may_commit.wait(10)
        account("a")(connection)

    writing = asyncio.create_task(database.write(dawdle))
    await asyncio.to_thread(is_begun.wait)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    may_commit.set()
    await add(database, "b")
    assert await names(database) == ["a", "b"]


async def test_writers_take_turns_and_none_is_refused(database: Database) -> None:
    wanted = [f"{number:02}" for number in range(40)]
    await asyncio.gather(*(add(database, name) for name in wanted))
    assert await names(database) == wanted


async def test_more_readers_than_connections_wait(database: Database) -> None:
    await add(database, "a")
    assert await asyncio.gather(*(names(database) for _ in range(40))) == [["a"]] * 40


async def test_a_row_of_nobody_is_refused(database: Database) -> None:
    orphan = insert(keys).values(id="k", account_id="nobody", prefix="p", hash="h", created_at=1.0)
    with pytest.raises(IntegrityError):
        await database.write(lambda connection: connection.execute(orphan).rowcount)


# The folder ---------------------------------------------------------------------------------------------------------


async def test_a_data_folder_is_made_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    database = await open_database(folder)
    await add(database, "a")
    await database.close()
    again = await open_database(folder)
    assert await names(again) == ["a"]
    await again.close()


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = await open_database(tmp_path)
    await database.close()
    with pytest.raises(StoreError, match="closed"):
        await names(database)
    with pytest.raises(StoreError, match="closed"):
        await add(database, "a")


async def test_a_second_server_is_refused_by_name_of_the_folder(database: Database, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match=str(tmp_path)):
        await open_database(tmp_path)
    assert await names(database) == []


async def test_a_closed_folder_is_free(tmp_path: Path) -> None:
    for _ in range(3):
        await (await open_database(tmp_path)).close()


async def test_a_folder_that_could_not_be_opened_is_free(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(StoreError, match=rf"{DATABASE_FILE} is not a database that .*: file is not a database"):
        await open_database(tmp_path)
    path.unlink()
    await (await open_database(tmp_path)).close()


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StoreError, match=f"the data folder {folder} can't be used: "):
            await open_database(folder)


async def test_a_newer_versions_database_is_refused(tmp_path: Path) -> None:
    await (await open_database(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = 'from the future'")
    with pytest.raises(StoreError, match="not a database that this version can use"):
        await open_database(tmp_path)


# Migrations ---------------------------------------------------------------------------------------------------------


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def config_for(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "allaprima.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def described(connection: Connection) -> dict[str, Any]:
    """Return everything about the tables that a statement could notice."""
    looked = inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in looked.get_columns(table)
            ],
            "primary": looked.get_pk_constraint(table),
            "foreign": sorted(looked.get_foreign_keys(table), key=str),
            "unique": sorted(looked.get_unique_constraints(table), key=str),
            # A partial index's condition is an object that equals itself alone.
            "indexes": sorted(
                str(index | {"dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}})
                for index in looked.get_indexes(table)
            ),
        }
        for table in looked.get_table_names()
        if table != "alembic_version"
    }


def test_migrations_lead_from_nothing_to_the_schema(tmp_path: Path) -> None:
    migrate(tmp_path / "a.db")
    with connected(tmp_path / "a.db") as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        migrated = described(connection)
    with connected(tmp_path / "b.db") as connection:
        metadata.create_all(connection)
        assert described(connection) == migrated
    assert set(migrated) == set(metadata.tables)


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path)
    with connected(path) as connection:
        connection.execute(insert(accounts).values(id="a", name="a", created_at=1.0))
        before = described(connection)
    migrate(path)
    with connected(path) as connection:
        assert described(connection) == before
        assert connection.execute(select(accounts.c.id)).scalars().all() == ["a"]


def test_the_schema_can_be_taken_down_and_built_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrate(path)
    with connected(path) as connection:
        before = described(connection)
    with connected(path) as connection:
        command.downgrade(config_for(connection), "base")
    with connected(path) as connection:
        assert described(connection) == {}
    migrate(path)
    with connected(path) as connection:
        assert described(connection) == before


def test_revisions_form_one_line() -> None:
    with connected(Path(":memory:")) as connection:
        script = ScriptDirectory.from_config(config_for(connection))
    assert len(script.get_heads()) == len(script.get_bases()) == 1
    assert all(revision.doc for revision in script.walk_revisions())


async def test_the_database_is_sound_after_use(tmp_path: Path) -> None:
    database = await open_database(tmp_path)
    await asyncio.gather(*(add(database, str(number)) for number in range(10)))
    await database.close()
    raw = sqlite3.connect(tmp_path / DATABASE_FILE)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        raw.close()


async def test_a_database_that_fails_is_a_store_error_without_its_own_words(database: Database) -> None:
    with pytest.raises(StoreError, match="the database can't do its work"):
        await database.write(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere").all())


async def test_a_migration_that_does_not_come_to_its_end_leaves_the_old_schema(tmp_path: Path) -> None:
    with connected(tmp_path / DATABASE_FILE) as connection:
        command.upgrade(config_for(connection), "0001")
        connection.exec_driver_sql(
            "CREATE TRIGGER stop BEFORE UPDATE ON alembic_version BEGIN SELECT RAISE(ABORT, 'the power went'); END"
        )
    with pytest.raises(StoreError, match="the power went"):
        await open_database(tmp_path)
    with connected(tmp_path / DATABASE_FILE) as connection:
        assert "crashes" not in {column["name"] for column in inspect(connection).get_columns("jobs")}
        connection.exec_driver_sql("DROP TRIGGER stop")
    await (await open_database(tmp_path)).close()


def test_what_keys_were_charged_this_month_is_summed_when_the_schema_comes_to_have_a_place_for_it(
    tmp_path: Path,
) -> None:
    now = dt.datetime.now(dt.UTC)
    month = dt.datetime(now.year, now.month, 1, tzinfo=dt.UTC).timestamp()
    path = tmp_path / "a.db"
    with connected(path) as connection:
        command.upgrade(config_for(connection), "0003")
        connection.exec_driver_sql("INSERT INTO accounts (id, name, created_at) VALUES ('a', 'a', 1)")
        for key in ("used", "idle"):
            connection.exec_driver_sql(
                "INSERT INTO keys (id, account_id, prefix, hash, created_at) VALUES (?, 'a', ?, ?, 1)", (key, key, key)
            )
        for slot, spent in ((month - 900, 1), (month, 10), (month + 900, 100)):
            connection.exec_driver_sql(
                "INSERT INTO usage_slots (account_id, slot, key_id, model, succeeded, failed, charged, images,"
                " megapixels, credits) VALUES ('a', ?, 'used', 'm', 1, 0, 1, 1, 0.1, ?)",
                (int(slot), spent),
            )
    migrate(path)
    with connected(path) as connection:
        found = connection.execute(select(keys.c.id, keys.c.month_start, keys.c.month_spent).order_by(keys.c.id)).all()
    assert found == [("idle", month, 0), ("used", month, 110)]
