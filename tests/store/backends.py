"""The database and object store backends that the contract tests run against."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from allaprima.domain.ports import ObjectStore
from allaprima.store.database import Database
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.sqlite import open_sqlite
from tests.store.sqlite_file import write_empty_database


async def open_migrated_sqlite(folder: Path) -> Database:
    write_empty_database(folder)
    return await open_sqlite(folder)


#: Functions that open the database of a folder, empty at first, by backend.
BACKENDS: dict[str, Callable[[Path], Awaitable[Database]]] = {"sqlite": open_migrated_sqlite}

#: Functions that open an empty object store in a folder, by backend.
OBJECT_STORES: dict[str, Callable[[Path], ObjectStore]] = {"local": LocalObjectStore}


async def query(database: Database, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of an SQL query."""
    return await database.read(
        lambda connection: [tuple(row) for row in connection.execute(text(statement), parameters)]
    )


async def run(database: Database, statement: str, **parameters: Any) -> int:
    """Run a writing SQL statement; return the number of changed rows."""
    return await database.write(lambda connection: connection.execute(text(statement), parameters).rowcount)


async def count(database: Database, table: str) -> int:
    """Return the number of a table's rows."""
    [(rows,)] = await query(database, f"SELECT count(*) FROM {table}")  # noqa: S608 - a table's name
    return int(rows)
