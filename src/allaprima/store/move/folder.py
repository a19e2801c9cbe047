"""The rows of a data folder's database, as PostgreSQL stores them.

SQLite stores any value in any column, and any bytes in text. Text that PostgreSQL can't store is changed, and counted:
NUL and damaged UTF-8 (so every lone surrogate) become U+FFFD, as the server reads them; a text that is not JSON becomes
a JSON string, which the server finds as unreadable as before. Any other value that does not fit raises `StoreError`.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import JSON, BigInteger, Column, Float, Integer, LargeBinary, Table

from allaprima.errors import StoreError
from allaprima.store.schema import images, installation, metadata, workers

#: Rows in memory at a time.
BATCH = 1000
#: The tables to copy; a table follows those that its foreign keys refer to. The processes of the folder have ended, and
#: its secret is a file.
TABLES: tuple[Table, ...] = tuple(table for table in metadata.sorted_tables if table not in (workers, installation))
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Row = tuple[Any, ...]


class FolderRows:
    """The database of a locked data folder, read in one snapshot and never written. Use one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = bytes
        self._connection.execute("PRAGMA query_only = 1")
        self._connection.execute("BEGIN")
        self._is_stopped = False
        #: Number of changed values by column and kind of change.
        self.changed: Counter[str] = Counter()

    def stop(self) -> None:
        """Make iterations that run in other threads raise `StoreError`."""
        self._is_stopped = True

    def close(self) -> None:
        """Close the database, which no thread may be reading."""
        self._connection.close()

    def rows(self, table: Table) -> Iterator[Row]:
        """Yield all rows of a table, with the values of its columns. Raises `StoreError`, which names the row."""
        self.changed = Counter({name: count for name, count in self.changed.items() if not _is_of(name, table)})
        yield from self._select(table, "")

    def find(self, table: Table, key: Sequence[Any]) -> Row | None:
        """Return the row with a primary key."""
        condition = " AND ".join(f'"{column.name}" = ?' for column in table.primary_key)
        return next(self._select(table, f"WHERE {condition}", key), None)

    def number(self, expression: str, table: Table) -> int:
        """Return an aggregate of a table's whole numbers, such as `count(*)`."""
        with self._errors():
            query = f"SELECT coalesce({expression}, 0) FROM {table.name}"  # noqa: S608 - names of the schema
            return int(self._connection.execute(query).fetchone()[0])

    def image_pages(self) -> Iterator[list[tuple[str, str]]]:
        """Yield the object names and the SHA-256 of all images, at most `BATCH` at a time."""
        name, sha256 = images.columns.keys().index("object_name"), images.columns.keys().index("sha256")
        page = []
        for row in self._select(images, ""):
            page.append((row[name], row[sha256]))
            if len(page) == BATCH:
                yield page
                page = []
        if page:
            yield page

    def _select(self, table: Table, condition: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        converters = [self._converter(column) for column in table.columns]
        keys = [table.columns.keys().index(column.name) for column in table.primary_key]
        with self._errors():
            found = self._connection.execute(f"SELECT {names} FROM {table.name} {condition}", parameters)  # noqa: S608
        while True:
            with self._errors():
                batch = found.fetchmany(BATCH)
            if self._is_stopped:
                raise StoreError("the copy was interrupted")
            if not batch:
                return
            for values in batch:
                try:
                    yield tuple(
                        None if value is None else convert(value)
                        for convert, value in zip(converters, values, strict=True)
                    )
                except _Unfit as exc:
                    key = "/".join(_shown(values[index]) for index in keys)
                    raise StoreError(
                        f"{self._path}: {exc} in the row {key} of {table.name}, so PostgreSQL can't store it; correct "
                        "or remove the row, and repeat the command"
                    ) from None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreError(f"{self._path} can't be read: {exc}") from exc

    def _converter(self, column: Column[Any]) -> Callable[[Any], Any]:
        name = f"{column.table.name}.{column.name}"
        if isinstance(column.type, JSON):
            return lambda value: self._json(name, value)
        if isinstance(column.type, Float):
            return lambda value: float(value) if isinstance(value, int | float) else _refuse(name, "a number")
        if isinstance(column.type, Integer):
            bits = 64 if isinstance(column.type, BigInteger) else 32
            return lambda value: _whole(name, bits, value)
        if isinstance(column.type, LargeBinary):
            return lambda value: value if isinstance(value, bytes) else _refuse(name, "bytes")
        return lambda value: self._text(name, value) if isinstance(value, bytes) else _refuse(name, "text")

    def _text(self, name: str, value: bytes) -> str:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("utf-8", "replace")
            self.changed[f"{name}: damaged UTF-8"] += 1
        if "\0" in text:
            text = text.replace("\0", _REPLACEMENT)
            self.changed[f"{name}: NUL"] += 1
        return text

    def _json(self, name: str, value: Any) -> str:
        if not isinstance(value, bytes):
            # SQLite turns the text of a number into a number.
            return json.dumps(value)
        text = value.decode("utf-8", "replace")
        try:
            # Python reads NaN and Infinity, which are no JSON.
            json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            self.changed[f"{name}: not JSON"] += 1
            return json.dumps(text)
        return text


class _Unfit(Exception):
    """A value does not fit its column."""


def _refuse(name: str, wanted: str) -> NoReturn:
    raise _Unfit(f"{name} is not {wanted}")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _whole(name: str, bits: int, value: Any) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        _refuse(name, f"a whole number of {bits} bits")
    return int(value)


def _shown(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_of(name: str, table: Table) -> bool:
    return name.startswith(f"{table.name}.")
