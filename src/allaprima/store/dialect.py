"""What the SQL of SQLite and of PostgreSQL has in two forms. All other statements run unchanged on both.

`with_for_update` needs no seam: SQLite's compiler leaves it out, since one connection writes.
"""

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Boolean, Connection, Executable, Float, String, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

POSTGRESQL = "postgresql"
#: Text that both databases compare by its bytes. PostgreSQL otherwise compares by the database's locale, in which `~`
#: may sort before `0`.
Text = String().with_variant(String(collation="C"), POSTGRESQL)
#: Makes the keys of this program's advisory locks differ from those of other programs in the same database.
_LOCK_SEED = 0x616C6C61

Insert = sqlite.Insert | postgresql.Insert


class Contains(FunctionElement[bool]):
    """Contains(text, part): whether a text contains a part. No character of the part is a wildcard."""

    type = Boolean()
    inherit_cache = True


@compiles(Contains, "sqlite")
def _contains_in_sqlite(element: Contains, compiler: SQLCompiler, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)}) > 0"


@compiles(Contains, POSTGRESQL)
def _contains_in_postgresql(element: Contains, compiler: SQLCompiler, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)}) > 0"


class Total(FunctionElement[int]):
    """Total(column): the sum of a column of whole numbers, as a whole number.

    PostgreSQL sums BIGINT as NUMERIC, which the driver returns as `Decimal`.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(Total, "sqlite")
def _total_in_sqlite(element: Total, compiler: SQLCompiler, **options: Any) -> str:
    return f"sum({compiler.process(element.clauses, **options)})"


@compiles(Total, POSTGRESQL)
def _total_in_postgresql(element: Total, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(sum({compiler.process(element.clauses, **options)}) AS BIGINT)"


class IsFalse(FunctionElement[bool]):
    """IsFalse(document, name): whether a member of a JSON object is `false`. In a damaged document it is not."""

    type = Boolean()
    inherit_cache = True


@compiles(IsFalse, "sqlite")
def _is_false_in_sqlite(element: IsFalse, compiler: SQLCompiler, **options: Any) -> str:
    document, name = (compiler.process(clause, **options) for clause in element.clauses)
    # SQLite fails a query that reads a member of text which is not JSON.
    return f"CASE WHEN json_valid({document}) = 1 THEN json_extract({document}, '$.' || {name}) IS 0 END"


@compiles(IsFalse, POSTGRESQL)
def _is_false_in_postgresql(element: IsFalse, compiler: SQLCompiler, **options: Any) -> str:
    document, name = (compiler.process(clause, **options) for clause in element.clauses)
    # The column keeps the text that `json.dumps` wrote. Its operators refuse a document with an escaped NUL anywhere.
    return f"strpos(CAST({document} AS TEXT), '\"' || {name} || '\": false') > 0"


class Now(FunctionElement[float]):
    """Now(): the database's time at this moment, not at the start of the transaction, in unix seconds."""

    type = Float()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_in_sqlite(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, POSTGRESQL)
def _now_in_postgresql(_element: Now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


def uptime(connection: Connection) -> float:
    """Return the seconds since the database server started; infinity for SQLite, which has no server."""
    if has_one_writer(connection):
        return math.inf
    age = func.extract("epoch", func.clock_timestamp() - func.pg_postmaster_start_time())
    return float(connection.execute(select(age)).scalar_one())


def commit_without_flush(connection: Connection) -> None:
    """Let the transaction's commit return before it is on the disk, for a change that a crash may lose.

    SQLite flushes every commit.
    """
    if not has_one_writer(connection):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def upsert(table: Table, build: Callable[[Insert], Executable]) -> Callable[[Connection], Executable]:
    """Build an `INSERT ... ON CONFLICT` of each dialect once; return the function that chooses a connection's."""
    statements = {"sqlite": build(sqlite.insert(table)), POSTGRESQL: build(postgresql.insert(table))}
    return lambda connection: statements[connection.dialect.name]


def has_one_writer(connection: Connection) -> bool:
    """Return whether no other transaction can write at the same time."""
    return connection.dialect.name != POSTGRESQL


def lock(connection: Connection, name: str) -> bool:
    """Lock a name until the transaction ends, against other transactions that lock it; return whether that was needed.

    SQLite has one writer, so nothing is locked there.
    """
    if has_one_writer(connection):
        return False
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, _LOCK_SEED))))
    return True
