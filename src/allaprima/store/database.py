"""The SQLite database: one writer, some readers, a lock file against a second server, migrations at opening.

SQLite before 3.51.3 can lose committed writes when two connections write in WAL mode, so exactly one connection
writes and checkpoints; all others are `query_only` and never checkpoint. `synchronous=FULL` keeps a commit through a
power cut. Source: sqlite.org/wal.html.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from allaprima.errors import StoreError, StoreLocked

logger = logging.getLogger(__name__)

DATABASE_FILE = "allaprima.db"
LOCK_FILE = "allaprima.lock"
READERS = 4
#: The first release with the fix, and older ones that carry it.
FIXED_SQLITE = (3, 51, 3)
PATCHED_SQLITE = ((3, 44, 6), (3, 50, 7))


class Database:
    """An open database. Use `open_database`."""

    def __init__(self, writer: AsyncEngine, readers: AsyncEngine, lock: FileLock) -> None:
        self._writer = writer
        self._readers = readers
        self._lock = lock
        # Waiting for the one writer happens here, in order, and not in SQLite's busy loop.
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; commits at the end, or not at all.

        Raises `StoreError` when the database can't do its work: a full disk, a damaged file.
        """
        with _translated():
            async with self._turn, self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that only reads, and sees one moment. Raises `StoreError` when the database can't be read."""
        with _translated():
            async with self._readers.connect() as connection:
                yield connection

    async def close(self) -> None:
        """Close all connections and give the data folder free."""
        await self._readers.dispose()
        await self._writer.dispose()
        self._lock.release()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the database's own failures (not our mistakes in a statement) into `StoreError`."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DBAPIError as exc:
        logger.exception("the database failed")
        raise StoreError("the database can't do its work") from exc


async def open_database(folder: Path) -> Database:
    """Lock the data folder, bring the schema up to date and connect.

    Raises `StoreLocked` when another process holds the folder, `StoreError` when it can't be made or written, or holds
    something else under the database's name.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise StoreLocked(f"another server works on the data folder {folder}") from exc
    except OSError as exc:
        raise StoreError(f"the data folder {folder} can't be used: {exc.strerror}") from exc
    path = folder / DATABASE_FILE
    try:
        version = sqlite3.sqlite_version_info
        if version < FIXED_SQLITE and version not in PATCHED_SQLITE:
            logger.debug("SQLite %s may have the WAL-reset bug; one writer avoids it", sqlite3.sqlite_version)
        try:
            await asyncio.to_thread(migrate, path)
        except (DBAPIError, CommandError) as exc:
            raise StoreError(f"{path} is not a database that this version can use: {_reason(exc)}") from exc
        writer = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)
        readers = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=READERS, max_overflow=0)
        event.listen(writer.sync_engine, "connect", _prepare_writer)
        event.listen(writer.sync_engine, "begin", _begin_immediate)
        event.listen(readers.sync_engine, "connect", _prepare_reader)
        event.listen(readers.sync_engine, "begin", _begin_deferred)
    except BaseException:
        lock.release()
        raise
    return Database(writer, readers, lock)


def _reason(exc: DBAPIError | CommandError) -> str:
    """Return what went wrong, without the statement that it befell."""
    return str(exc.orig if isinstance(exc, DBAPIError) else exc)


def migrate(path: Path) -> None:
    """Bring the schema at `path` to the newest revision, making the file if need be."""
    config = Config()
    config.set_main_option("script_location", "allaprima.store:migrations")
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    # One transaction, so that a crash leaves the old schema or the new one: the driver by itself begins none for DDL.
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediate)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _pragmas(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_writer(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions on its own; `_begin_immediate` does.
    connection.isolation_level = None
    _pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    # Or every statement would see a state of its own, and two of them contradict each other.
    connection.exec_driver_sql("BEGIN")


def _prepare_reader(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    _pragmas(connection, "query_only=1", "wal_autocheckpoint=0")
