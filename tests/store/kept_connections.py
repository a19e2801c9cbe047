"""Keeps connections to the tests' own databases when a pool closes them, for the pools of later tests.

A new backend of PostgreSQL reads its catalogs into empty caches, which takes longer than most tests. Connections to
servers that a test stops are not kept.
"""

import atexit
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect

#: Connections that no pool has, by their arguments.
_kept: dict[tuple[tuple[str, str], ...], list["psycopg.Connection[Any]"]] = {}
_databases: set[tuple[str, str]] = set()


def keep_connections(url: str) -> None:
    """Keep the connections to a database."""
    if not _databases:
        event.listen(Engine, "do_connect", _connect)
        # Before the server stops, which was started earlier.
        atexit.register(_close_all)
    given = psycopg.conninfo.conninfo_to_dict(url)
    _databases.add((str(given["port"]), str(given["dbname"])))


def _connect(
    dialect: Dialect, _record: Any, _arguments: Any, parameters: dict[str, Any]
) -> "psycopg.Connection[Any] | None":
    """Return a connection for a pool; None lets SQLAlchemy open one."""
    database = str(parameters.get("port")), str(parameters.get("dbname"))
    if dialect.name != "postgresql" or database not in _databases:
        return None
    # Every pool has an own `context`, the conversions of SQLAlchemy, which are the same.
    key = tuple(sorted((name, str(value)) for name, value in parameters.items() if name != "context"))
    kept = _kept.setdefault(key, [])
    while kept:
        connection = kept.pop()
        if _is_sound(connection):
            return connection
        psycopg.Connection.close(connection)
    connection = psycopg.connect(**parameters)

    def keep() -> None:
        if _is_sound(connection):
            kept.append(connection)
        else:
            psycopg.Connection.close(connection)

    connection.close = keep  # type: ignore[method-assign]
    return connection


def _is_sound(connection: "psycopg.Connection[Any]") -> bool:
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


def _close_all() -> None:
    for kept in _kept.values():
        for connection in kept:
            psycopg.Connection.close(connection)
