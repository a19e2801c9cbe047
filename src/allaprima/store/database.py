"""The interface between repositories and a database backend.

A repository method is a function of a connection; the backend runs each call as one transaction.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
P = ParamSpec("P")


class Database(Protocol):
    """An open database. `sqlite` and `postgres` implement it.

    A transaction is a function of a connection. The backend runs the whole function in one of its threads, so the event
    loop awaits once per transaction, not once per statement.
    """

    #: Whether several processes may have the database open.
    is_shared: bool = False

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction that may write; it commits when the function returns, and rolls back when it raises.

        A transaction that has started runs to its end even if its caller is cancelled. Raises `StoreError` when the
        database fails: a full disk, a damaged file, a closed database.
        """

    async def write_hot(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction that locks rows which many transactions change, such as an account.

        It is durable when this returns, as with `write`, but no other transaction waits for the disk in between. If the
        answer to its commit is lost, it is run again, so it must notice its own commit.
        """
        return await self.write(transaction)

    def write_blocking(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction as `write` does, for a thread that has no event loop. Raises `StoreError`."""

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction that only reads; all its statements read one snapshot.

        Raises `StoreError` when the database can't be read, or is closed.
        """

    async def compact(self) -> None:
        """Rewrite the database, so that no byte of a removed row remains in its files.

        Raises `StoreError`, or `StoreFull` if the disk has no room for a second copy; the rows are then unchanged.
        """

    async def close(self) -> None:
        """Close all connections."""


class Repository:
    """Statements on one database.

    A method marked `reads` or `writes` is called without its `connection` parameter and awaited.
    """

    def __init__(self, database: Database) -> None:
        self._database = database


S = TypeVar("S", bound=Repository)


def reads(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Turn a method with a `connection` parameter into a coroutine function that runs it as one reading transaction."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.read(lambda connection: method(self, connection, *args, **kwargs))

    return transaction


def writes(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Turn a method with a `connection` parameter into a coroutine function that runs it as one writing transaction."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.write(lambda connection: method(self, connection, *args, **kwargs))

    return transaction


def writes_hot(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Turn a method into a coroutine function as `writes` does, for `Database.write_hot`."""

    @wraps(method)
    async def transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.write_hot(lambda connection: method(self, connection, *args, **kwargs))

    return transaction
