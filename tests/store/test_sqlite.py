"""The SQLite backend: its pragmas, its lock file, and what it refuses to open."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from allaprima.errors import StoreError, StoreLocked
from allaprima.store.database import Database
from allaprima.store.schema import accounts
from allaprima.store.sqlite import DATABASE_FILE, LOCK_FILE, open_sqlite
from store.sqlite_file import ask

#: The schema of an earlier commit, with rows.
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


async def test_the_writer_keeps_a_commit_through_a_power_cut(database: Database) -> None:
    assert await database.write(pragma("journal_mode")) == "wal"
    assert await database.write(pragma("synchronous")) == 2  # FULL
    assert await database.write(pragma("foreign_keys")) == 1


async def test_readers_are_read_only_and_never_checkpoint(database: Database) -> None:
    assert await database.read(pragma("query_only")) == 1
    assert await database.read(pragma("wal_autocheckpoint")) == 0


async def test_the_file_is_sound_after_use(tmp_path: Path) -> None:
    database = await open_sqlite(tmp_path)
    await asyncio.gather(*(add(database, str(number)) for number in range(10)))
    await database.close()
    assert ask(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(tmp_path, "PRAGMA journal_mode") == [("wal",)]


# The folder ---------------------------------------------------------------------------------------------------------


async def test_a_data_folder_is_created(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    await (await open_sqlite(folder)).close()
    assert (folder / DATABASE_FILE).is_file()


async def test_a_second_server_is_refused_with_the_name_of_the_folder(database: Database, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match=str(tmp_path)):
        await open_sqlite(tmp_path)
    assert await names(database) == []


async def test_a_closed_folder_is_unlocked(tmp_path: Path) -> None:
    for _ in range(3):
        await (await open_sqlite(tmp_path)).close()


async def test_a_folder_that_was_refused_is_unlocked(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(StoreError, match=rf"{DATABASE_FILE} is not a database that .*: file is not a database"):
        await open_sqlite(tmp_path)
    path.unlink()
    await (await open_sqlite(tmp_path)).close()


async def test_a_folder_that_can_not_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StoreError, match=f"the data folder {folder} can't be used: "):
            await open_sqlite(folder)


# What is refused and left as it is ----------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The time of change and the bytes of everything in a folder, except the lock file."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        if path.name != LOCK_FILE:
            data = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = path.stat().st_mtime_ns, data
    return found


def write_old_folder(folder: Path, *, is_killed: bool) -> None:
    """Write a data folder as an earlier commit left it. is_killed: all of it is still in the write-ahead log."""
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
    """Return the message with which a folder is refused, after the folder was found as it was."""
    before = contents(folder)
    with pytest.raises(StoreError) as caught:
        await open_sqlite(folder)
    assert contents(folder) == before
    return caught.value.message


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_data_folder_of_an_earlier_commit_is_refused_and_untouched(tmp_path: Path, is_killed: bool) -> None:
    folder = tmp_path / "data"
    write_old_folder(folder, is_killed=is_killed)
    assert (folder / f"{DATABASE_FILE}-wal").exists() == is_killed
    message = await refusal(folder)
    assert message == (
        f"another version of allaprima wrote {folder / DATABASE_FILE} (schema 0005), and this version can't read it; "
        "use another data folder, or start that version"
    )
    assert "\n" not in message


async def test_an_empty_log_of_a_refused_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_old_folder(folder, is_killed=False)
    (folder / f"{DATABASE_FILE}-wal").touch()
    assert "schema 0005" in await refusal(folder)


async def test_a_database_of_a_later_version_is_refused_and_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await (await open_sqlite(folder)).close()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999_of_later'")
    assert "schema 9999_of_later" in await refusal(folder)


async def test_a_database_of_another_program_is_refused_and_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("CREATE TABLE accounts (id TEXT)")
    (folder / LOCK_FILE).touch()
    assert "is not a database of allaprima" in await refusal(folder)


async def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database, " * 100)
    (tmp_path / LOCK_FILE).touch()
    assert "file is not a database" in await refusal(tmp_path)


async def test_a_killed_servers_log_is_read_at_the_next_start(tmp_path: Path) -> None:
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
