"""Direct access to the SQLite file of a data folder, while a `Database` may be open."""

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from allaprima.store.data_folder import DATABASE_FILE
from allaprima.store.sqlite import migrate

#: Longest wait for a lock, in seconds. It allows for a busy machine.
LIMIT_S = 60


def ask(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query on the file."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, timeout=LIMIT_S)) as raw:
        return raw.execute(statement, values).fetchall()


def change(folder: Path, statement: str, *values: object) -> None:
    """Run a writing statement on the file."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, timeout=LIMIT_S)) as raw, raw:
        raw.execute(statement, values)


def count(folder: Path, table: str) -> int:
    """Return the number of a table's rows."""
    return int(ask(folder, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a table's name


def dump(folder: Path) -> str:
    """Return the whole content of the database as SQL text."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        return "\n".join(raw.iterdump())


def write_empty_database(folder: Path) -> None:
    """Write a database with the newest schema and no rows, unless the folder has one.

    The migrations run once per process: they commit to disk for a tenth of a second.
    """
    path = folder / DATABASE_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_empty_database())


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DATABASE_FILE
        migrate(path)
        return path.read_bytes()
