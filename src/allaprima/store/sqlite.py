"""The SQLite backend: one writing connection, several reading ones, and migrations when the database is opened.

The lock of the data folder keeps a second server out. SQLite before 3.51.3 can lose committed writes when two
connections write in WAL mode, so exactly one connection writes and checkpoints; all others are `query_only` and never
checkpoint. With `synchronous=FULL` a commit survives a power failure.
Source: sqlite.org/wal.html.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from allaprima.errors import StoreError, StoreFull
from allaprima.store.data_folder import DataFolder
from allaprima.store.database import Database
from allaprima.store.migrations import HEAD, LOCATION
from allaprima.store.moved import require_not_moved

logger = logging.getLogger(__name__)

READERS = 4
_REVISION_TABLE = "alembic_version"
#: The first SQLite release that fixes the lost writes, and the older releases to which the fix was backported.
FIXED_SQLITE = (3, 51, 3)
PATCHED_SQLITE = ((3, 44, 6), (3, 50, 7))

T = TypeVar("T")


class SqliteDatabase(Database):
    """An open SQLite database. Use `open_sqlite`."""

    def __init__(self, writer: Engine, readers: Engine, folder: DataFolder) -> None:
        self._writer = writer
        self._readers = readers
        self._folder = folder
        # Writing transactions queue in this executor, in order, instead of in SQLite's busy loop.
        self._writing = ThreadPoolExecutor(1, "database-writer")
        self._reading = ThreadPoolExecutor(READERS, "database-reader")

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._in_thread(self._writing, lambda: _run(self._writer, transaction))

    def write_blocking(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`."""
        try:
            return self._writing.submit(_run, self._writer, transaction).result()
        except RuntimeError as exc:
            # `submit` raises RuntimeError after the executor was shut down.
            raise StoreError("the database is closed") from exc

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._in_thread(self._reading, lambda: _run(self._readers, transaction))

    async def _in_thread(self, executor: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(executor, run)
        except RuntimeError as exc:
            # `run_in_executor` raises RuntimeError after the executor was shut down.
            raise StoreError("the database is closed") from exc
        return await future

    async def compact(self) -> None:
        """See `Database`. Other writes wait until the end, which takes some seconds for a gigabyte."""
        await self._in_thread(self._writing, self._vacuum)

    def _vacuum(self) -> None:
        # Without a transaction, in which SQLite refuses both statements.
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            # The write-ahead log may contain removed rows until it is truncated, which no reader may delay.
            busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as exc:
            logger.error("the database could not be rewritten: %s", exc)  # noqa: TRY400 - a sentence
            if exc.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreFull from exc
            raise StoreError("the database could not be rewritten") from exc
        finally:
            connection.close()
        if busy:
            raise StoreError("the database is being read, so its log still contains removed rows; try again")

    async def close(self) -> None:
        """Close all connections and unlock the data folder."""
        for executor, engine in ((self._reading, self._readers), (self._writing, self._writer)):
            await asyncio.to_thread(executor.shutdown)
            engine.dispose()
        self._folder.unlock()


def _run(engine: Engine, transaction: Callable[[Connection], T]) -> T:
    with _translate_errors(), engine.begin() as connection:
        return transaction(connection)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn failures of the database into `StoreError`. Errors in a statement are bugs and pass unchanged."""
    try:
        yield
    except (IntegrityError, ProgrammingError):
        raise
    except DBAPIError as exc:
        logger.error("the database failed: %s", exc.orig)  # noqa: TRY400 - a sentence, without the statement
        if getattr(exc.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StoreFull from exc
        raise StoreError("the database failed") from exc
    except UnicodeDecodeError as exc:
        logger.error("the database failed: its schema is damaged")  # noqa: TRY400 - as above
        raise StoreError("the database failed") from exc


async def open_sqlite(folder: Path) -> SqliteDatabase:
    """Lock the data folder, upgrade the schema and connect.

    Raises `StoreLocked` when another process has locked the folder. Raises `StoreError` when the folder was moved to
    another database or can't be created or written, when another version of the server wrote the database, or when the
    file is not such a database; the file is then unchanged.
    """
    version = sqlite3.sqlite_version_info
    if version < FIXED_SQLITE and version not in PATCHED_SQLITE:
        logger.debug("SQLite %s may have the WAL-reset bug; a single writer avoids it", sqlite3.sqlite_version)
    require_not_moved(folder)
    data_folder = DataFolder(folder)
    path = data_folder.database
    try:
        await asyncio.to_thread(upgrade, path)
        writer, readers = _connect(path, 1), _connect(path, READERS)
        event.listen(writer, "connect", _prepare_writer)
        event.listen(writer, "begin", _begin_immediate)
        event.listen(readers, "connect", _prepare_reader)
        event.listen(readers, "begin", _begin_deferred)
    except BaseException:
        data_folder.unlock()
        raise
    return SqliteDatabase(writer, readers, data_folder)


async def upgrade_sqlite(folder: Path) -> str | None:
    """Upgrade the schema of a data folder; return the revision that it had, None for a new one. Raises as above."""
    require_not_moved(folder)
    data_folder = DataFolder(folder)
    try:
        return await asyncio.to_thread(upgrade, data_folder.database)
    finally:
        data_folder.unlock()


def _connect(path: Path, connections: int) -> Engine:
    return create_engine(
        f"sqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        # Prompts are parameters of statements, and errors are logged.
        hide_parameters=True,
        json_deserializer=_read_json,
    )


def upgrade(path: Path) -> str | None:
    """Upgrade the schema as `migrate` does. Raises `StoreError` for every file that can't be upgraded."""
    try:
        return migrate(path)
    except DBAPIError as exc:
        raise StoreError(f"{path} is not a database that this version can use: {exc.orig}") from exc
    except UnicodeDecodeError as exc:
        # SQLite's message quotes a damaged schema.
        raise StoreError(f"{path} is not a database that this version can use: its schema is damaged") from exc


def migrate(path: Path, migrations: str = LOCATION) -> str | None:
    """Upgrade the schema at `path` to the newest revision; create the file if it is missing.

    migrations: Alembic's script location. Returns the revision before; None for a new file. Raises `StoreError`, and
    writes nothing, when the file is not a database with a schema of these migrations.
    """
    stored = _stored_revision(path)
    if migrations == LOCATION and stored == HEAD:
        return stored
    # Importing Alembic takes longer than an operator's command, so it is imported only when a migration runs.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", migrations)
    config.set_main_option("path_separator", "os")
    _check_schema(path, {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()})
    engine = _connect(path, 1)
    # The driver starts no transaction for DDL. One explicit transaction means that a crash leaves the old schema or the
    # new one.
    event.listen(engine, "connect", _prepare_migration)
    event.listen(engine, "begin", _begin_immediate)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if dangling := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                raise StoreError(f"{path} can't be upgraded: {len(dangling)} rows refer to rows that are missing")
    finally:
        engine.dispose()
    return stored


def _stored_revision(path: Path) -> str | None:
    """Return the revision of a database's schema; None when the file is missing or has no readable revision."""
    try:
        return _read_schema(path)[1] if path.exists() else None
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return None


def _check_schema(path: Path, known: set[str]) -> None:
    """Raise `StoreError` unless the file is missing, an empty database, or a schema of one of the known revisions."""
    if not path.exists():
        return
    try:
        tables, revision = _read_schema(path)
    except sqlite3.OperationalError as exc:
        logger.debug("%s can't be read before the migration: %s", path, exc)
        return
    except sqlite3.DatabaseError as exc:
        raise StoreError(f"{path} is not a database that this version can use: {exc}") from exc
    if revision is not None and revision not in known:
        raise StoreError(
            f"another version of allaprima wrote {path} (schema {revision}), and this version can't read it; "
            "use another data folder, or start that version"
        )
    if revision is None and tables - {_REVISION_TABLE}:
        raise StoreError(f"{path} is not a database of allaprima; use another data folder")


def _read_schema(path: Path) -> tuple[set[str], str | None]:
    """Return a database's tables and its schema's revision, including changes in its write-ahead log; write nothing.

    A server that was killed leaves a write-ahead log. With exclusive locking SQLite keeps the log's index in memory,
    not in a file. The VFS `unix-none` takes no file locks, which would fail for a read-only file; allaprima's lock file
    excludes other servers. SQLite would remove an empty log, so with an empty log the database is opened as immutable.
    """
    log = path.with_name(f"{path.name}-wal")
    mode = "mode=ro&vfs=unix-none" if log.exists() and log.stat().st_size else "immutable=1"
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        row = None
        if _REVISION_TABLE in tables:
            row = connection.execute(f"SELECT version_num FROM {_REVISION_TABLE}").fetchone()  # noqa: S608 - a constant
        return tables, None if row is None else str(row[0])


def _pragmas(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class DamagedJson:
    """The value of a column whose text is not JSON. No model accepts it, so the row counts as unreadable."""


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return DamagedJson()


def _decode(text: bytes) -> str:
    """Return the text of a column; damaged bytes become U+FFFD, so that one damaged row fails no query."""
    return text.decode("utf-8", "replace")


def _prepare_writer(connection: Any, _record: Any) -> None:
    connection.text_factory = _decode
    # The driver must not start transactions: `_begin_immediate` starts them.
    connection.isolation_level = None
    # `secure_delete` overwrites removed content, such as the prompts of jobs with `store=false`.
    _pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")


def _prepare_migration(connection: Any, _record: Any) -> None:
    # A migration that rebuilds a table drops the old table, which foreign keys forbid while rows refer to it. `migrate`
    # checks the foreign keys before it commits. Source: sqlite.org/lang_altertable.html, section 7.
    _prepare_writer(connection, _record)
    _pragmas(connection, "foreign_keys=OFF")


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    # Without a transaction each statement would read its own snapshot, so two statements could be inconsistent.
    connection.exec_driver_sql("BEGIN")


def _prepare_reader(connection: Any, _record: Any) -> None:
    connection.text_factory = _decode
    connection.isolation_level = None
    _pragmas(connection, "query_only=1", "wal_autocheckpoint=0")
