"""The databases of data folders: a SQLite file, or a PostgreSQL database of this process.

A folder below one named `postgresql` has a PostgreSQL database. A test that starts a service on the same folder twice
finds its rows again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.string import TextLoader

from allaprima.store.postgres import migrate
from allaprima.store.schema import metadata
from tests.store import sqlite_file
from tests.store.kept_connections import keep_connections
from tests.store.postgres_server import server
from tests.store.sqlite_file import write_empty_database

#: The names of the databases, which are those of their folders.
SQLITE, POSTGRESQL = "sqlite", "postgresql"
BACKENDS = (SQLITE, POSTGRESQL)


@dataclass
class _PostgresDatabase:
    """A PostgreSQL database that one data folder uses at a time."""

    url: str
    folder: Path | None = None

    @cached_property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the tests' own, whose commits do not wait for the disk. Those of the service do."""
        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute("SET synchronous_commit TO off")
        # JSON as its text, as in SQLite.
        connection.adapters.register_loader("json", TextLoader)
        return connection

    def empty(self) -> None:
        # Faster than TRUNCATE or a database per test, which write new files for every table and index.
        with self.connection.transaction():
            for table in reversed(metadata.sorted_tables):
                self.connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - a table's name


_databases: list[_PostgresDatabase] = []


def _postgres(folder: Path) -> _PostgresDatabase | None:
    """Return the PostgreSQL database of a folder, empty at first; None for a folder of SQLite."""
    if POSTGRESQL not in folder.parts:
        return None
    for database in _databases:
        if database.folder == folder:
            return database
    free = next((database for database in _databases if database.folder is None), None)
    if free is None:
        free = _PostgresDatabase(server().create(f"service{len(_databases)}"))
        migrate(free.url)
        keep_connections(free.url)
        _databases.append(free)
    free.empty()
    free.folder = folder
    return free


def prepare(folder: Path) -> dict[str, Any]:
    """Make the empty database of a data folder, unless it has one; return the settings of the store."""
    if database := _postgres(folder):
        return {"data_dir": folder, "database_url": database.url}
    write_empty_database(folder)
    return {"data_dir": folder}


@contextmanager
def releasing(folder: Path) -> Iterator[Path]:
    """Release the databases of the folders below `folder` when the context exits."""
    try:
        yield folder
    finally:
        for database in _databases:
            if database.folder and database.folder.is_relative_to(folder):
                database.folder = None


def ask(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query, past the service. `?` in the statement stands for each value."""
    if database := _postgres(folder):
        return database.connection.execute(statement.replace("?", "%s").encode(), values or None).fetchall()
    return sqlite_file.ask(folder, statement, *values)


def change(folder: Path, statement: str, *values: object) -> None:
    """Run a writing statement, past the service. `?` in the statement stands for each value."""
    if database := _postgres(folder):
        database.connection.execute(statement.replace("?", "%s").encode(), values or None)
    else:
        sqlite_file.change(folder, statement, *values)


def count(folder: Path, table: str) -> int:
    """Return the number of a table's rows."""
    return int(ask(folder, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a table's name


def dump(folder: Path) -> str:
    """Return all rows of all tables as text."""
    tables = (table.name for table in metadata.sorted_tables)
    return "\n".join(str(row) for table in tables for row in ask(folder, f"SELECT * FROM {table}"))  # noqa: S608


def stored_bytes(folder: Path) -> bytes:
    """Return every byte of a data folder, and all rows of a PostgreSQL database."""
    rows = dump(folder).encode() if _postgres(folder) else b""
    return rows + b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
