"""Direct access to the SQLite file of a data folder, beside an open `Database`."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from allaprima.store.sqlite import DATABASE_FILE


def ask(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on the file."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return raw.execute(statement).fetchall()


def count(folder: Path, table: str) -> int:
    """Return the number of a table's rows."""
    return int(ask(folder, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a table's name


def dump(folder: Path) -> str:
    """Return the whole content of the database as SQL text."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return "\n".join(raw.iterdump())
