"""What `allaprima doctor` reports of a PostgreSQL database. Nothing is created or changed."""

import time

from sqlalchemy import Connection, inspect

from allaprima.domain.postgres_report import PostgresReport
from allaprima.store.migrations import HEAD
from allaprima.store.postgres import (
    READERS,
    REVISION_TABLE,
    WRITERS,
    connect,
    find_revision,
    missing_privileges,
    open_transaction,
)
from allaprima.store.schema import metadata

#: Round trips of which the shortest is reported, and by which the clock is compared.
ROUND_TRIPS = 5
_SETTINGS = (
    "server_version",
    "server_version_num",
    "server_encoding",
    "synchronous_commit",
    "fsync",
    "max_connections",
    "transaction_read_only",
)


def report(url: str, *, is_pooled: bool = False) -> PostgresReport:
    """Look at a database. Raises `StoreError` if it can't be reached."""
    engine = connect(url, is_pooled=is_pooled)
    try:
        with open_transaction(engine) as connection:
            return _report(connection)
    finally:
        engine.dispose()


def _report(connection: Connection) -> PostgresReport:
    names = ", ".join(f"current_setting('{name}')" for name in _SETTINGS)
    found = dict(zip(_SETTINGS, connection.exec_driver_sql(f"SELECT {names}").one(), strict=True))
    collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    tables = set(inspect(connection).get_table_names())
    round_trip_s, difference_s = min(_compare_clocks(connection) for _ in range(ROUND_TRIPS))
    return PostgresReport(
        version=found["server_version"],
        major_version=int(found["server_version_num"]) // 10_000,
        encoding=found["server_encoding"],
        collation=connection.exec_driver_sql(collation).scalar_one(),
        revision=_find_readable_revision(connection, tables),
        newest_revision=HEAD,
        is_empty=not tables,
        missing_privileges=tuple(_missing_privileges(connection, tables)),
        is_owner=_is_owner(connection),
        is_read_only=found["transaction_read_only"] == "on",
        synchronous_commit=found["synchronous_commit"],
        fsync=found["fsync"] == "on",
        max_connections=int(found["max_connections"]),
        # For transactions, the heartbeat, and hints.
        connections_per_server=WRITERS + READERS + 2,
        clock_difference_s=difference_s,
        round_trip_s=round_trip_s,
    )


def _find_readable_revision(connection: Connection, tables: set[str]) -> str | None:
    if REVISION_TABLE not in tables:
        return None
    reads = f"SELECT has_table_privilege('{REVISION_TABLE}', 'SELECT')"
    return find_revision(connection) if connection.exec_driver_sql(reads).scalar_one() else None


def _missing_privileges(connection: Connection, tables: set[str]) -> list[str]:
    if tables.issuperset(metadata.tables):
        return missing_privileges(connection)
    creates = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    return [] if connection.exec_driver_sql(creates).scalar_one() else ["CREATE tables"]


def _is_owner(connection: Connection) -> bool:
    others = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
    others += " AND NOT pg_has_role(tableowner, 'USAGE')"
    return connection.exec_driver_sql(others).scalar_one() == 0


def _compare_clocks(connection: Connection) -> tuple[float, float]:
    """Return the seconds of a round trip, and by how many the server's clock is ahead of this machine's."""
    before = time.time(), time.perf_counter()
    server = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())::float8").scalar_one()
    round_trip_s = time.perf_counter() - before[1]
    return round_trip_s, server - (before[0] + round_trip_s / 2)
