"""Copies the rows of a data folder into PostgreSQL, and compares both.

All rows are copied in one transaction, so that an interrupted copy leaves an empty database. The schema has no
sequences or identity columns that would have to be set.
"""

import hashlib
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import JSON, Connection, String, Table, cast, func, select

from allaprima.domain.move import Check
from allaprima.errors import StoreError
from allaprima.store.move.folder import BATCH, TABLES, FolderRows, Row
from allaprima.store.schema import accounts, api_keys, images, installation, jobs, ledger, metadata, usage, workers
from allaprima.store.secret import INSERT_SECRET

#: Sums of whole numbers, which both databases compute themselves.
SUMS = (
    accounts.c.balance,
    accounts.c.held,
    accounts.c.image_bytes,
    api_keys.c.spent,
    api_keys.c.held,
    jobs.c.held,
    usage.c.images,
    usage.c.credits,
    ledger.c.credits,
    images.c.size_bytes,
)
_EMPTY_ONE = "use an empty database"


def is_copied(connection: Connection, folder: FolderRows, secret: bytes | None) -> bool:
    """Return whether a database has exactly the folder's rows and secret; False if it is empty.

    secret: None if the folder has none. Raises `StoreError`, which names what it has, for any other database: a server
    may have changed it since.
    """
    _unlimited(connection)
    worker = connection.execute(select(workers.c.name).limit(1)).scalar()
    if worker is not None:
        raise StoreError(
            f"the target database has served: its table workers has the server {worker}; stop that, and {_EMPTY_ONE}"
        )
    own = connection.execute(select(installation.c.secret)).scalar()
    if secret is not None and own not in (None, secret):
        raise StoreError(f"the target database has the signing secret of another installation; {_EMPTY_ONE}")
    filled = [table for table in TABLES if connection.execute(select(table).limit(1)).first() is not None]
    if not filled:
        return False
    for table in TABLES:
        if _totals(target_rows(connection, table)) != _totals(folder.rows(table)):
            raise StoreError(f"the target database {_difference(connection, table, folder)}; {_EMPTY_ONE}")
    if secret is not None and own is None:
        raise StoreError(f"the target database has the rows of the folder without its signing secret; {_EMPTY_ONE}")
    return True


def copy_rows(connection: Connection, folder: FolderRows, secret: bytes | None, report: Callable[[str], None]) -> None:
    """Copy all rows and the secret into an empty database, unless it has them already. Raises `StoreError`.

    No other process writes to the database until the transaction ends.
    """
    _unlimited(connection)
    with _errors("the target database can't be locked; stop the servers that use it"):
        names = sql.SQL(", ").join(sql.Identifier(table.name) for table in metadata.sorted_tables)
        _raw(connection).execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(names))
    if is_copied(connection, folder, secret):
        report("the rows were copied before")
        return
    for table in TABLES:
        with _errors(f"the table {table.name} could not be copied"):
            count = _copy(connection, table, folder.rows(table))
        report(f"copied {table.name}: {count:,} rows")
    if secret is not None:
        connection.execute(INSERT_SECRET(connection), {"id": 1, "secret": secret})


def _copy(connection: Connection, table: Table, rows: Iterable[Row]) -> int:
    count = 0
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    name = sql.Identifier(table.name)
    raw = _raw(connection)
    with raw.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(name, columns)) as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
        # The server chooses plans by the number of rows.
        cursor.execute(sql.SQL("ANALYZE {}").format(name))
    return count


def compare(connection: Connection, folder: FolderRows, secret: bytes | None) -> list[Check]:
    """Return the rows, the hashes and the sums of all tables, of the folder and of the target. Raises `StoreError`."""
    _unlimited(connection)
    checks = []
    for table in TABLES:
        own_rows, own_hash = _totals(folder.rows(table))
        target_count, target_hash = _totals(target_rows(connection, table))
        checks.append(Check(f"{table.name}, rows", str(own_rows), str(target_count)))
        checks.append(Check(f"{table.name}, hash", own_hash, target_hash))
    for column in SUMS:
        total = connection.execute(select(func.coalesce(func.sum(column), 0))).scalar_one()
        own = folder.number(f'sum("{column.name}")', column.table)
        checks.append(Check(f"{column.table.name}, sum of {column.name}", str(own), str(int(total))))
    if secret is None:
        return checks
    stored = connection.execute(select(installation.c.secret)).scalar()
    fingerprints = [hashlib.sha256(value).hexdigest()[:16] for value in (secret, stored or b"")]
    checks.append(Check("signing secret, hash", *fingerprints))
    return checks


def target_rows(connection: Connection, table: Table) -> Generator[Row]:
    """Yield all rows of a table of PostgreSQL, with the text of JSON values."""
    columns = [cast(column, String) if isinstance(column.type, JSON) else column for column in table.columns]
    with connection.execute(select(*columns).execution_options(yield_per=BATCH)) as found:
        for row in found:
            yield tuple(row)


def _totals(rows: Iterable[Row]) -> tuple[int, str]:
    """Return the number of rows and a hash of them that does not depend on their order: the sum of SHA-256."""
    count = total = 0
    for row in rows:
        count += 1
        total += int.from_bytes(hashlib.sha256(b"".join(map(_bytes, row))).digest())
    return count, f"{total % 2**256:064x}"[:32]


def _bytes(value: Any) -> bytes:
    """Return bytes that differ for different values of a column."""
    if value is None:
        return b"-"
    if isinstance(value, float):
        # Adding zero makes a negative zero positive.
        return b"f" + struct.pack(">d", value + 0.0)
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"v" + len(data).to_bytes(8) + data


def _difference(connection: Connection, table: Table, folder: FolderRows) -> str:
    """Return how a table of the target differs from the folder's, with the first row that does."""
    keys = [table.columns.keys().index(column.name) for column in table.primary_key]
    with closing(target_rows(connection, table)) as found:
        for row in found if keys else ():
            key = [row[index] for index in keys]
            own = folder.find(table, key)
            if own is None:
                return f"has the row {'/'.join(map(str, key))} of {table.name}, which the folder lacks"
            if own != row:
                return f"has other values in the row {'/'.join(map(str, key))} of {table.name} than the folder"
    return f"lacks rows of {table.name} that the folder has" if keys else f"has another {table.name} than the folder"


def _unlimited(connection: Connection) -> None:
    """Let statements of this transaction run as long as they need: they read or write whole tables."""
    connection.exec_driver_sql("SET LOCAL statement_timeout TO 0")
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO 0")


def _raw(connection: Connection) -> psycopg.Connection[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


@contextmanager
def _errors(problem: str) -> Iterator[None]:
    """Turn errors of the driver, which SQLAlchemy does not see here, into `StoreError`."""
    try:
        yield
    except psycopg.Error as exc:
        # The other lines of the message may quote values.
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise StoreError(f"{problem}: {reason}") from exc
