"""The backends that the contract tests run against: one more is one entry here."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from allaprima.domain.ports import ObjectStore
from allaprima.store.database import Database
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.sqlite import open_sqlite

#: Opens a database for the tests; a backend with a server makes an empty one there, named after the folder.
BACKENDS: dict[str, Callable[[Path], Awaitable[Database]]] = {"sqlite": open_sqlite}

#: Opens an empty object store.
OBJECT_STORES: dict[str, Callable[[Path], ObjectStore]] = {"local": LocalObjectStore}


async def query(database: Database, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return what a statement in SQL finds."""
    return await database.read(
        lambda connection: [tuple(row) for row in connection.execute(text(statement), parameters)]
    )


async def run(database: Database, statement: str, **parameters: Any) -> int:
    """Run a statement that writes; return how many rows it changed."""
    return await database.write(lambda connection: connection.execute(text(statement), parameters).rowcount)


async def count(database: Database, table: str) -> int:
    """Return the number of a table's rows."""
    [(rows,)] = await query(database, f"SELECT count(*) FROM {table}")  # noqa: S608 - a table's name
    return int(rows)
