"""The contract of every database: atomic transactions, snapshots for readers, queued writers."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from allaprima.errors import StoreError
from allaprima.store.database import Database
from allaprima.store.schema import accounts, api_keys
from tests.store.backends import BACKENDS


async def add(database: Database, name: str) -> None:
    await database.write(account(name))


def account(name: str) -> Callable[[Connection], None]:
    def transaction(connection: Connection) -> None:
        connection.execute(insert(accounts).values(id=name, name=name, created_at=1.0))

    return transaction


async def names(database: Database) -> list[str]:
    wanted = select(accounts.c.name).order_by(accounts.c.name)
    return await database.read(lambda connection: list(connection.execute(wanted).scalars()))


async def test_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError):
        await database.read(account("a"))
    assert await names(database) == []


async def test_commit_is_visible_to_next_reader(database: Database) -> None:
    await add(database, "a")
    assert await names(database) == ["a"]


async def test_failed_transaction_is_rolled_back(database: Database) -> None:
    def fail(connection: Connection) -> None:
        account("a")(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(fail)
    assert await names(database) == []
    await add(database, "b")
    assert await names(database) == ["b"]


async def test_reader_sees_no_uncommitted_row(database: Database) -> None:
    is_written, may_commit = threading.Event(), threading.Event()

    def wait(connection: Connection) -> None:
        account("a")(connection)
        is_written.set()
        assert may_commit.wait(10)

    writing = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(is_written.wait)
    assert await names(database) == []
    may_commit.set()
    await writing
    assert await names(database) == ["a"]


async def test_started_transaction_commits_after_caller_is_cancelled(database: Database) -> None:
    is_begun, may_commit = threading.Event(), threading.Event()

    def wait(connection: Connection) -> None:
        is_begun.set()
        assert may_commit.wait(10)
        account("a")(connection)

    writing = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(is_begun.wait)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    may_commit.set()
    await add(database, "b")
    assert await names(database) == ["a", "b"]


async def test_concurrent_writers_all_commit(database: Database) -> None:
    wanted = [f"{number:02}" for number in range(40)]
    await asyncio.gather(*(add(database, name) for name in wanted))
    assert await names(database) == wanted


async def test_readers_wait_for_free_connection(database: Database) -> None:
    await add(database, "a")
    assert await asyncio.gather(*(names(database) for _ in range(40))) == [["a"]] * 40


async def test_row_with_unknown_account_is_refused(database: Database) -> None:
    orphan = insert(api_keys).values(id="k", account_id="unknown", prefix="p", hash="h", created_at=1.0)
    with pytest.raises(IntegrityError):
        await database.write(lambda connection: connection.execute(orphan).rowcount)


async def test_reader_sees_one_snapshot(database: Database) -> None:
    has_read, may_go_on = threading.Event(), threading.Event()
    wanted = select(accounts.c.name)

    def read_twice(connection: Connection) -> list[list[str]]:
        first = list(connection.execute(wanted).scalars())
        has_read.set()
        assert may_go_on.wait(10)
        return [first, list(connection.execute(wanted).scalars())]

    reading = asyncio.create_task(database.read(read_twice))
    await asyncio.to_thread(has_read.wait)
    await add(database, "a")
    may_go_on.set()
    assert await reading == [[], []]


async def test_failed_statement_raises_store_error_without_details(database: Database) -> None:
    with pytest.raises(StoreError, match=r"^the database failed$"):
        await database.write(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere").all())


@pytest.mark.parametrize("backend", BACKENDS)
async def test_closed_database_raises_store_error(tmp_path: Path, backend: str) -> None:
    database = await BACKENDS[backend](tmp_path)
    await database.close()
    with pytest.raises(StoreError, match="closed"):
        await names(database)
    with pytest.raises(StoreError, match="closed"):
        await add(database, "a")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_rows_survive_closing_the_database(tmp_path: Path, backend: str) -> None:
    database = await BACKENDS[backend](tmp_path)
    await add(database, "a")
    await database.close()
    again = await BACKENDS[backend](tmp_path)
    assert await names(again) == ["a"]
    await again.close()
