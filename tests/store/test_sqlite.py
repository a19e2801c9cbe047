"""The SQLite backend: its pragmas, its lock file, and the folders that it refuses."""

import asyncio
import shutil
import sqlite3
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from allaprima.errors import StoreError, StoreFull, StoreLocked
from allaprima.store.data_folder import DATABASE_FILE, LOCK_FILE
from allaprima.store.database import Database
from allaprima.store.schema import accounts
from allaprima.store.sqlite import open_sqlite
from tests.store.sqlite_file import ask

#: SQL of a database with rows that an earlier version wrote.
OLD_SCHEMA = Path(__file__).parent / "old_schema_0005.sql"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_sqlite(tmp_path)
    yield opened
    await opened.close()


def pragma(name: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


async def add(database: Database, name: str) -> None:
    values = {"id": name, "name": name, "created_at": 1.0}
    await database.write(lambda connection: connection.execute(insert(accounts).values(values)).rowcount)


async def names(database: Database) -> list[str]:
    wanted = select(accounts.c.name).order_by(accounts.c.name)
    return await database.read(lambda connection: list(connection.execute(wanted).scalars()))


# Connections --------------------------------------------------------------------------------------------------------


async def test_commit_survives_power_failure(database: Database) -> None:
    assert await database.write(pragma("journal_mode")) == "wal"
    assert await database.write(pragma("synchronous")) == 2  # FULL
    assert await database.write(pragma("foreign_keys")) == 1


async def test_readers_are_read_only_and_never_checkpoint(database: Database) -> None:
    assert await database.read(pragma("query_only")) == 1
    assert await database.read(pragma("wal_autocheckpoint")) == 0


async def test_database_file_passes_integrity_check(tmp_path: Path) -> None:
    database = await open_sqlite(tmp_path)
    await asyncio.gather(*(add(database, str(number)) for number in range(10)))
    await database.close()
    assert ask(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(tmp_path, "PRAGMA journal_mode") == [("wal",)]


async def test_failed_statement_reveals_no_parameter(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await database.write(pragma("max_page_count=1"))
    with pytest.raises(StoreFull) as caught:
        await add(database, " ".join(["secret", "prompt"] * 10_000))
    report = "".join(traceback.format_exception(caught.value))
    assert "database or disk is full" in caplog.text
    assert "database or disk is full" in report
    assert "secret prompt" not in caplog.text + report


# The folder ---------------------------------------------------------------------------------------------------------


async def test_missing_data_folder_is_created(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    await (await open_sqlite(folder)).close()
    assert (folder / DATABASE_FILE).is_file()


async def test_second_server_on_data_folder_is_refused(database: Database, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match=str(tmp_path)):
        await open_sqlite(tmp_path)
    assert await names(database) == []


async def test_closed_database_unlocks_its_folder(tmp_path: Path) -> None:
    for _ in range(3):
        await (await open_sqlite(tmp_path)).close()


async def test_refused_folder_is_unlocked(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(StoreError, match=rf"{DATABASE_FILE} is not a database that .*: file is not a database"):
        await open_sqlite(tmp_path)
    path.unlink()
    await (await open_sqlite(tmp_path)).close()


async def test_unusable_data_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StoreError, match=f"the data folder {folder} can't be used: "):
            await open_sqlite(folder)


# Refused folders ----------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return modification time and bytes of every file and folder in a folder, except the lock file."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        if path.name != LOCK_FILE:
            data = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = path.stat().st_mtime_ns, data
    return found


def write_old_folder(folder: Path, *, is_killed: bool) -> None:
    """Write the data folder of an earlier version. is_killed: all rows are still in the write-ahead log."""
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0198.png").write_bytes(b"image")
    (folder / "secret").write_bytes(bytes(32))
    (folder / LOCK_FILE).touch()
    working = folder.with_name("working")
    working.mkdir()
    with closing(sqlite3.connect(working / DATABASE_FILE)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA wal_autocheckpoint=0")
        raw.executescript(OLD_SCHEMA.read_text())
        if is_killed:
            for path in working.iterdir():
                shutil.copy(path, folder)
    if not is_killed:
        shutil.copy(working / DATABASE_FILE, folder)


async def refusal(folder: Path) -> str:
    """Return the message with which a folder is refused; assert that its content is unchanged."""
    before = contents(folder)
    with pytest.raises(StoreError) as caught:
        await open_sqlite(folder)
    assert contents(folder) == before
    return caught.value.message


@pytest.mark.parametrize("is_killed", [False, True])
async def test_older_data_folder_is_refused_unchanged(tmp_path: Path, is_killed: bool) -> None:
    folder = tmp_path / "data"
    write_old_folder(folder, is_killed=is_killed)
    assert (folder / f"{DATABASE_FILE}-wal").exists() == is_killed
    message = await refusal(folder)
    assert message == (
        f"another version of allaprima wrote {folder / DATABASE_FILE} (schema 0005), and this version can't read it; "
        "use another data folder, or start that version"
    )
    assert "\n" not in message


async def test_refused_folder_keeps_its_empty_wal_file(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_old_folder(folder, is_killed=False)
    (folder / f"{DATABASE_FILE}-wal").touch()
    assert "schema 0005" in await refusal(folder)


async def test_newer_database_is_refused_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await (await open_sqlite(folder)).close()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999_of_later'")
    assert "schema 9999_of_later" in await refusal(folder)


async def test_foreign_database_is_refused_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("CREATE TABLE accounts (id TEXT)")
    (folder / LOCK_FILE).touch()
    assert "is not a database of allaprima" in await refusal(folder)


async def test_invalid_database_file_is_refused_unchanged(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database, " * 100)
    (tmp_path / LOCK_FILE).touch()
    assert "file is not a database" in await refusal(tmp_path)


async def test_wal_of_killed_server_is_replayed_at_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    database = await open_sqlite(folder)
    await add(database, "a")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        shutil.copy(path, copy)
    await database.close()
    again = await open_sqlite(copy)
    assert await names(again) == ["a"]
    await again.close()


def bytes_in(folder: Path) -> bytes:
    """Return the content of all files in a folder."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_compacted_database_keeps_its_rows_and_its_files_no_removed_byte(tmp_path: Path) -> None:
    database = await open_sqlite(tmp_path)

    def fill(connection: Any) -> None:
        for number in range(500):
            text = f"walrus {number} " * (1 + number * 7 % 400)
            connection.exec_driver_sql(
                "INSERT INTO accounts (id, name, created_at, balance, held) VALUES (?, ?, ?, 0, 0)",
                (f"{number}", text, number),
            )

    await database.write(fill)
    await database.write(lambda connection: connection.exec_driver_sql("UPDATE accounts SET name = 'kept' || id"))
    await database.compact()
    assert b"walrus" not in bytes_in(tmp_path)
    assert (tmp_path / "allaprima.db-wal").stat().st_size == 0
    kept = "SELECT count(*) FROM accounts WHERE name = 'kept' || id"
    assert await database.read(lambda connection: connection.exec_driver_sql(kept).scalar()) == 500
    await database.close()
    with pytest.raises(StoreError):
        await database.compact()
