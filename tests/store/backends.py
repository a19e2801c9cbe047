"""The database and object store backends that the contract tests run against."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import NullType

from allaprima.domain.ports import ObjectStore
from allaprima.store.database import Database
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.postgres import migrate, open_postgres
from allaprima.store.schema import metadata
from allaprima.store.sqlite import open_sqlite
from tests.store.kept_connections import keep_connections
from tests.store.postgres_server import server
from tests.store.sqlite_file import write_empty_database

T = TypeVar("T")


async def open_migrated_sqlite(folder: Path) -> Database:
    write_empty_database(folder)
    return await open_sqlite(folder)


async def open_emptied_postgres(folder: Path) -> Database:
    """Open the database of this process. It is emptied unless it was last opened for the same folder."""
    return await open_postgres(_emptied(folder))


def _emptied(folder: Path) -> str:
    marker, url = folder / "postgres", _database_url()
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Faster than TRUNCATE or a database per test, which write new files for every table and index.
        with psycopg.connect(url) as connection:
            # The commits of the test itself wait for the disk.
            connection.execute("SET synchronous_commit TO off")
            for table in reversed(metadata.sorted_tables):
                connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - a table's name
        marker.touch()
    return url


@cache
def _database_url() -> str:
    url = server().create("store")
    migrate(url)
    keep_connections(url)
    return url


class _FirstTry(Exception):
    """Rolls the first try of a transaction back."""


class RepeatingDatabase(Database):
    """Runs each writing transaction twice, as after a deadlock: the first try is rolled back at its end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        def fail(connection: Connection) -> None:
            transaction(connection)
            raise _FirstTry

        with suppress(_FirstTry):
            await self._database.write(fail)
        return await self._database.write(transaction)

    def write_blocking(self, transaction: Callable[[Connection], T]) -> T:
        return self._database.write_blocking(transaction)

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        await self._database.read(transaction)
        return await self._database.read(transaction)

    async def close(self) -> None:
        await self._database.close()


async def open_repeating_sqlite(folder: Path) -> Database:
    return RepeatingDatabase(await open_migrated_sqlite(folder))


#: Functions that open the database of a folder, empty at first, by backend.
BACKENDS: dict[str, Callable[[Path], Awaitable[Database]]] = {
    "sqlite": open_migrated_sqlite,
    "postgres": open_emptied_postgres,
}

#: Functions that open an empty object store in a folder, by backend.
OBJECT_STORES: dict[str, Callable[[Path], ObjectStore]] = {"local": LocalObjectStore}


def _statement(statement: str, parameters: dict[str, Any]) -> Any:
    # Without a type, so that PostgreSQL gives each parameter the type of its column.
    return text(statement).bindparams(*(bindparam(name, value, NullType()) for name, value in parameters.items()))


async def query(database: Database, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of an SQL query."""
    prepared = _statement(statement, parameters)
    return await database.read(lambda connection: [tuple(row) for row in connection.execute(prepared)])


async def run(database: Database, statement: str, **parameters: Any) -> int:
    """Run a writing SQL statement; return the number of changed rows."""
    prepared = _statement(statement, parameters)
    return await database.write(lambda connection: connection.execute(prepared).rowcount)


async def count(database: Database, table: str) -> int:
    """Return the number of a table's rows."""
    [(rows,)] = await query(database, f"SELECT count(*) FROM {table}")  # noqa: S608 - a table's name
    return int(rows)
