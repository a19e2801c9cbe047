"""The SQLite database: one writer, some readers, a lock file against a second server, migrations at opening.

SQLite before 3.51.3 can lose committed writes when two connections write in WAL mode, so exactly one connection
writes and checkpoints; all others are `query_only` and never checkpoint. `synchronous=FULL` keeps a commit through a
power cut. Source: sqlite.org/wal.html.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from allaprima.errors import StoreError, StoreLocked

logger = logging.getLogger(__name__)

DATABASE_FILE = "allaprima.db"
LOCK_FILE = "allaprima.lock"
READERS = 4
#: The first release with the fix, and older ones that carry it.
FIXED_SQLITE = (3, 51, 3)
PATCHED_SQLITE = ((3, 44, 6), (3, 50, 7))


T = TypeVar("T")
P = ParamSpec("P")


class Database:
    """An open database. Use `open_database`.

    A transaction is a function of a connection, run as a whole in a thread of the database's own: the event loop gives
    it away once and takes the answer once, however many statements it has.
    """

    def __init__(self, writer: Engine, readers: Engine, lock: FileLock) -> None:
        self._writer = writer
        self._readers = readers
        self._lock = lock
        # Waiting for the one writer happens before its thread, in order, and not in SQLite's busy loop.
        self._writing = ThreadPoolExecutor(1, "database-writer")
        self._reading = ThreadPoolExecutor(READERS, "database-reader")

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Return what a transaction that may write returns; it commits when it does, and leaves nothing if it raises.

        Once begun it goes on to its end, even if whoever awaits it is cancelled.
        Raises `StoreError` when the database can't do its work: a full disk, a damaged file, closed.
        """
        return await self._run(self._writing, self._writer, transaction)

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """Return what a transaction that only reads returns; it sees one moment.

        Raises `StoreError` when the database can't be read, or is closed.
        """
        return await self._run(self._reading, self._readers, transaction)

    async def _run(self, threads: ThreadPoolExecutor, engine: Engine, transaction: Callable[[Connection], T]) -> T:
        def run() -> T:
            with _translated(), engine.begin() as connection:
                return transaction(connection)

        try:
            answer = asyncio.get_running_loop().run_in_executor(threads, run)
        except RuntimeError as exc:
            # Its threads take nothing any more.
            raise StoreError("the database is closed") from exc
        return await answer

    async def close(self) -> None:
        """Close all connections and give the data folder free."""
        for threads, engine in ((self._reading, self._readers), (self._writing, self._writer)):
            await asyncio.to_thread(threads.shutdown)
            engine.dispose()
        # By the thread that took it.
        self._lock.release()


class _OnDatabase(Protocol):
    _database: Database


S = TypeVar("S", bound=_OnDatabase)


def reads(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method that is given a connection into one that is awaited without: a transaction that only reads."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.read(lambda connection: method(self, connection, *args, **kwargs))

    return transaction


def writes(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method that is given a connection into one that is awaited without: a transaction that may write."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.write(lambda connection: method(self, connection, *args, **kwargs))

    return transaction


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
        writer = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)
        readers = create_engine(f"sqlite:///{path}", pool_size=READERS, max_overflow=0)
        event.listen(writer, "connect", _prepare_writer)
        event.listen(writer, "begin", _begin_immediate)
        event.listen(readers, "connect", _prepare_reader)
        event.listen(readers, "begin", _begin_deferred)
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
