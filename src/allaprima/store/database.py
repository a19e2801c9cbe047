"""The transaction seam: repositories write functions of a connection, a backend runs each as one transaction."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
P = ParamSpec("P")


class Database(Protocol):
    """An open database: one file per backend implements it.

    A transaction is a function of a connection, run as a whole in a thread of the database's: the event loop waits
    once, however many statements it has.
    """

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction that may write; it commits when the function returns, and rolls back when it raises.

        A transaction that has started is finished even if its caller is cancelled. Raises `StoreError` when the
        database can't do its work: a full disk, a damaged file, closed.
        """

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction that only reads; it sees one snapshot.

        Raises `StoreError` when the database can't be read, or is closed.
        """

    async def close(self) -> None:
        """Close all connections."""


class Repository:
    """Statements on one database. Methods marked `reads` and `writes` are awaited without their connection."""

    def __init__(self, database: Database) -> None:
        self._database = database


S = TypeVar("S", bound=Repository)


def reads(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Turn a method that takes a connection into a coroutine function without it: one transaction that only reads."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.read(lambda connection: method(self, connection, *args, **kwargs))

    return transaction


def writes(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Turn a method that takes a connection into a coroutine function without it: one transaction that may write."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.write(lambda connection: method(self, connection, *args, **kwargs))

    return transaction
