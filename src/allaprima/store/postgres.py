"""The PostgreSQL backend: a bounded pool, timeouts, retries, and the schema of an empty database.

Writes are READ COMMITTED, and lock what they read before they change it; reads are REPEATABLE READ and read-only.
Times are double precision unix seconds, and text is compared by its bytes, as in SQLite.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import OperationalError, ProgrammingError
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from allaprima.domain.database_url import FORM, SETTING, check_database_url
from allaprima.errors import DatabaseUnavailable, StoreError, StoreFull
from allaprima.store import dialect
from allaprima.store.database import Database
from allaprima.store.migrations import HEAD, LOCATION
from allaprima.store.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

#: Connections for each kind of transaction.
WRITERS, READERS = 4, 4
#: Seconds after which the server ends a statement, a wait for a lock, and a transaction whose client is silent.
STATEMENT_TIMEOUT_S, LOCK_TIMEOUT_S, IDLE_TIMEOUT_S = 10, 5, 30
_LIMITS = {
    "statement_timeout": STATEMENT_TIMEOUT_S,
    "lock_timeout": LOCK_TIMEOUT_S,
    "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S,
}
#: Seconds to wait before each repetition of a transaction; a restart of the server takes some seconds.
RETRY_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
#: Seconds that a transaction waits for a thread; after a longer wait it fails, so that clients are answered.
LONGEST_WAIT_S = sum(RETRY_WAITS_S)
#: A transaction that failed with one of these is repeated: serialization failure, deadlock, a server that stops or
#: starts, no free connection.
_REPEATABLE = {"40001", "40P01", "57P01", "57P02", "57P03", "53300"}
_LOCK_TIMEOUT = "55P03"
_DISK_FULL = "53100"
_READ_ONLY, _NOT_PERMITTED = "25006", "42501"
#: Has the schema's revision.
REVISION_TABLE = "alembic_version"

T = TypeVar("T")


class PostgresDatabase(Database):
    """A connected PostgreSQL database. Use `open_postgres`."""

    is_shared = True

    def __init__(self, engine: Engine, *, is_pooled: bool = False) -> None:
        self._engine = engine
        self._is_pooled = is_pooled
        self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # As many threads as connections, so that no thread waits for a connection.
        self._writing = ThreadPoolExecutor(WRITERS, "database-writer")
        self._reading = ThreadPoolExecutor(READERS, "database-reader")
        #: Ends the waits before repetitions.
        self._closing = threading.Event()

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._in_thread(self._writing, lambda: self._run(self._engine, transaction))

    async def write_hot(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`. The commit releases the locks without waiting for the disk; then the log is flushed.

        The log is one sequence, so a transaction that read this one's rows is durable only if this one is.
        """
        return await self._in_thread(self._writing, lambda: self._run(self._engine, transaction, is_hot=True))

    def write_blocking(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`. One thread at a time has a connection for this."""
        return self._run(self._engine, transaction)

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._in_thread(self._reading, lambda: self._run(self._snapshots, transaction))

    def _run(self, engine: Engine, transaction: Callable[[Connection], T], *, is_hot: bool = False) -> T:
        """Run a transaction, and repeat it while it fails for a reason that may pass.

        If the answer to a commit was lost, the transaction may have been committed: only a hot one is then repeated.
        """
        with _translate_errors():
            for wait_s in (*RETRY_WAITS_S, None):
                is_commit_sent = False
                try:
                    with engine.connect() as connection:
                        with connection.begin():
                            if is_hot:
                                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
                            result = transaction(connection)
                            is_commit_sent = True
                        if is_hot:
                            _flush(connection)
                        return result
                except DBAPIError as exc:
                    if (is_commit_sent and not is_hot) or wait_s is None or not _may_pass(exc):
                        raise
                    logger.info("a transaction is repeated: %s", _reason(exc))
                # With a random part, so that two transactions that blocked each other do not meet again.
                self._closing.wait(wait_s * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    async def _in_thread(self, executor: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        submitted = time.monotonic()

        def run_in_time() -> T:
            # While the database is away, each transaction waits for its repetitions, and others wait for its thread.
            if time.monotonic() - submitted > LONGEST_WAIT_S:
                raise DatabaseUnavailable
            return run()

        try:
            future = asyncio.get_running_loop().run_in_executor(executor, run_in_time)
        except RuntimeError as exc:
            # `run_in_executor` raises RuntimeError after the executor was shut down.
            raise StoreError("the database is closed") from exc
        return await future

    async def compact(self) -> None:
        """See `Database`. Each table is locked while it is rewritten. Backups and archived logs keep removed rows."""
        await self._in_thread(self._writing, self._vacuum)

    def _vacuum(self) -> None:
        engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with _translate_errors(), engine.connect() as connection:
            # PostgreSQL skips the tables of another owner with a warning.
            if not owns_tables(connection):
                raise StoreError(
                    "the role does not own the tables, so it can't rewrite them; run VACUUM FULL as the owner"
                )
            # Behind PgBouncer the timeouts are set by transaction, so the session has none.
            if not self._is_pooled:
                connection.exec_driver_sql("SET statement_timeout TO 0")
            try:
                for table in metadata.sorted_tables:
                    connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table.name}")
            finally:
                if not self._is_pooled:
                    connection.exec_driver_sql("RESET statement_timeout")

    async def close(self) -> None:
        """Close all connections."""
        self._closing.set()
        for executor in (self._reading, self._writing):
            await asyncio.to_thread(executor.shutdown)
        self._engine.dispose()


def _flush(connection: Connection) -> None:
    """Make all earlier commits durable: a synchronous commit flushes the log up to itself."""
    with connection.begin():
        connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'allaprima', '')")


def _may_pass(exc: DBAPIError) -> bool:
    sqlstate = getattr(exc.orig, "sqlstate", None)
    # A connection that can't be opened has no SQLSTATE.
    return sqlstate in _REPEATABLE or exc.connection_invalidated or _is_unreachable(exc)


def _is_unreachable(exc: DBAPIError) -> bool:
    return isinstance(exc.orig, OperationalError) and exc.orig.sqlstate is None


def _reason(exc: DBAPIError) -> str:
    """Return the first line of the server's message; the other lines may quote values of the statement."""
    return (str(exc.orig).splitlines() or [type(exc.orig).__name__])[0]


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn failures of the database into `StoreError`. A violated constraint is a bug and passes unchanged.

    A connection that was lost during the commit is one of them: the transaction may have been committed.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as exc:
        logger.error("the database failed: %s", _reason(exc))  # noqa: TRY400 - a sentence, without the statement
        sqlstate = getattr(exc.orig, "sqlstate", None)
        if sqlstate == _DISK_FULL:
            raise StoreFull from exc
        if sqlstate == _LOCK_TIMEOUT or _may_pass(exc):
            raise DatabaseUnavailable from exc
        raise StoreError("the database failed") from exc


async def open_postgres(url: str, *, is_pooled: bool = False) -> PostgresDatabase:
    """Connect to a database; an empty one gets the newest schema.

    url: `postgresql://user:password@host:port/database`, with the parameters of libpq. is_pooled: whether it leads
    through PgBouncer in transaction mode. Raises `StoreError`, without the password, when the URL is not one of
    PostgreSQL, when the database can't be reached or written, or when its schema is not that of this version.
    """
    engine = connect(url, is_pooled=is_pooled)
    try:
        await asyncio.to_thread(_check_schema, engine)
    except BaseException:
        engine.dispose()
        raise
    return PostgresDatabase(engine, is_pooled=is_pooled)


def connect(url: str, *, is_pooled: bool = False) -> Engine:
    """Return the pool of a database. Raises `StoreError` for a URL that is not one of PostgreSQL."""
    engine = create_engine(
        "postgresql+psycopg://",
        # One more, for the heartbeat of the worker.
        pool_size=WRITERS + READERS + 1,
        # The connections that were used last know the tables already.
        pool_use_lifo=True,
        max_overflow=0,
        # Prompts are parameters of statements, and errors are logged.
        hide_parameters=True,
        connect_args=_connection_parameters(url, is_pooled=is_pooled),
    )
    event.listen(engine, "connect", _prepare)
    if is_pooled:
        event.listen(engine, "begin", _limit_transaction)
    return engine


def _connection_parameters(url: str, *, is_pooled: bool) -> dict[str, Any]:
    """Return the arguments of `psycopg.connect`. Parameters in the URL have precedence, except the timeouts."""
    try:
        check_database_url(url)
        given = conninfo_to_dict(url)
    except ValueError as exc:
        raise StoreError(f"{SETTING} {exc}") from None
    except ProgrammingError:
        # Its message quotes the URL, which may have a password.
        raise StoreError(f"{SETTING} {FORM}; libpq can't read the one given") from None
    parameters: dict[str, Any] = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "allaprima",
        **given,
    }
    if is_pooled:
        # The next statement of a connection may reach another session, which has not prepared it.
        parameters["prepare_threshold"] = None
    else:
        options = [f"-c {name}={seconds}s" for name, seconds in _LIMITS.items()]
        parameters["options"] = " ".join([str(given.get("options", "")), *options]).strip()
    return parameters


def _limit_transaction(connection: Connection) -> None:
    limits = ", ".join(f"set_config('{name}', '{seconds}s', true)" for name, seconds in _LIMITS.items())
    connection.exec_driver_sql(f"SELECT {limits}")


class _TextDumper(Dumper):
    """Sends text. PostgreSQL stores neither NUL nor lone surrogates; each becomes U+FFFD, as in damaged text."""

    def dump(self, obj: str) -> bytes:
        try:
            return obj.replace("\0", "\N{REPLACEMENT CHARACTER}").encode()
        except UnicodeEncodeError:
            return self.dump(obj.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _prepare(connection: Any, _record: Any) -> None:
    connection.adapters.register_dumper(str, _TextDumper)


def _check_schema(engine: Engine) -> None:
    """Create the schema of an empty database; raise `StoreError` for another schema than the newest."""
    revision = _create_or_find(engine)
    if revision not in (None, HEAD):
        if revision not in _known_revisions(LOCATION):
            raise _newer(revision)
        raise StoreError(
            f"{SETTING} names a database with the older schema {revision}, and this version of allaprima needs {HEAD}; "
            "run `allaprima migrate`"
        )
    with _open_schema(engine) as connection:
        _check_access(connection)


def _newer(revision: str | None) -> StoreError:
    return StoreError(
        f"{SETTING} names a database that another version of allaprima wrote (schema {revision}; this version needs "
        f"{HEAD}); start that version"
    )


def _check_access(connection: Connection) -> None:
    """Raise `StoreError` for a role that only reads."""
    if connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on":
        raise StoreError(f"{SETTING} names a role or a server that only reads, and allaprima writes")
    if missing := missing_privileges(connection):
        raise StoreError(f"{SETTING} names a role that may not {missing[0]}; grant it, or name the role of the owner")


def missing_privileges(connection: Connection) -> list[str]:
    """Return what the role may not do with the tables, such as "INSERT into jobs"."""
    verbs = {"SELECT": "from", "INSERT": "into", "UPDATE": "of", "DELETE": "from"}
    asked = (
        "SELECT name, verb FROM unnest(%s::text[]) AS name, unnest(%s::text[]) AS verb "
        "WHERE NOT has_table_privilege(name, verb)"
    )
    missing = connection.exec_driver_sql(asked, ([table.name for table in metadata.sorted_tables], list(verbs)))
    return [f"{verb} {verbs[verb]} {name}" for name, verb in missing]


def owns_tables(connection: Connection) -> bool:
    """Return whether the role may change and rewrite all tables."""
    others = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
    others += " AND NOT pg_has_role(tableowner, 'USAGE')"
    return bool(connection.exec_driver_sql(others).scalar_one() == 0)


def migrate(url: str, migrations: str = LOCATION, *, is_pooled: bool = False) -> str | None:
    """Upgrade the schema of a database to the newest revision, in one transaction; create it in an empty one.

    migrations: Alembic's script location. Returns the revision before; None for an empty database. Raises `StoreError`,
    and changes nothing, for a database of another program or of a newer version.
    """
    engine = connect(url, is_pooled=is_pooled)
    try:
        revision = _create_or_find(engine)
        _upgrade(engine, migrations)
    finally:
        engine.dispose()
    return revision


def _create_or_find(engine: Engine) -> str | None:
    """Return the schema's revision; create the newest schema in an empty database, and return None."""
    with _open_schema(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        if REVISION_TABLE in tables:
            return find_revision(connection)
        if tables:
            raise StoreError(f"{SETTING} names a database with tables of another program; use an empty one")
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise StoreError(f"{SETTING} names a database with the encoding {encoding}, and allaprima needs UTF8")
        _create(connection)
        return None


def _create(connection: Connection) -> None:
    """Create the newest schema. Revisions before the first that ran on PostgreSQL are SQLite's history alone."""
    metadata.create_all(connection)
    connection.execute(text(f"CREATE TABLE {REVISION_TABLE} (version_num VARCHAR(32) PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {REVISION_TABLE} VALUES (:head)"), {"head": HEAD})  # noqa: S608


def find_revision(connection: Connection) -> str:
    """Return the schema's revision."""
    return str(connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar_one())  # noqa: S608


def _known_revisions(migrations: str) -> set[str]:
    # Importing Alembic takes longer than an operator's command, so it is imported only for another schema.
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_alembic(migrations)).walk_revisions()}


def _alembic(migrations: str) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", migrations)
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(engine: Engine, migrations: str) -> None:
    from alembic import command

    config, known = _alembic(migrations), _known_revisions(migrations)
    with _open_schema(engine) as connection:
        if (revision := find_revision(connection)) not in known:
            raise _newer(revision)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _open_schema(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that changes the schema; a second one waits for its end."""
    with open_transaction(engine) as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout TO 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout TO 0")
        dialect.lock(connection, "schema")
        yield connection


@contextmanager
def open_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction outside a service. Raises `StoreError`, whose message names the setting."""
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as exc:
        raise StoreError(f"{SETTING} can't be used: {_cause(exc)}") from exc


def _cause(exc: DBAPIError) -> str:
    """Return why a connection or a change of the schema failed, as a clause of a sentence."""
    reason = _reason(exc).removeprefix("connection failed: ").removeprefix("connection is bad: ")
    reason = reason.replace("FATAL:  ", "").rstrip()
    if "unsupported startup parameter" in reason:
        return f"{reason}; if the URL leads through PgBouncer, set ALLAPRIMA_STORE__POOLED=true"
    sqlstate = getattr(exc.orig, "sqlstate", None)
    if sqlstate == _READ_ONLY:
        return f"its role or its server only reads ({reason})"
    return f"its role lacks a privilege ({reason})" if sqlstate == _NOT_PERMITTED else reason
