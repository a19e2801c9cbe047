"""Hints between processes through PostgreSQL: heard at once, and again after a lost connection."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psycopg
import pytest

from allaprima.domain.hints import Hint, HintKind, Reconnected
from allaprima.domain.ports import Hints
from allaprima.store.hints import PostgresHints, open_hints
from tests.store.postgres_server import server

WORK = Hint(HintKind.WORK)
#: Longest wait for a hint, in seconds. It allows for a busy machine.
LIMIT_S = 60


class Follower:
    """The hints that one process receives."""

    def __init__(self, received: AsyncIterator[Hint | Reconnected]) -> None:
        self._received = received

    async def next(self) -> Hint | Reconnected:
        return await asyncio.wait_for(anext(self._received), LIMIT_S)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def connect(stack: AsyncExitStack, url: str | None = None) -> tuple[Hints, Follower]:
    """Open hints of one more process; return them when it listens."""
    hints = await stack.enter_async_context(open_hints(url or server().url("postgres")))
    follower = Follower(await stack.enter_async_context(hints.follow()))
    assert await follower.next() == Reconnected()
    return hints, follower


async def test_hints_reach_other_processes_in_order_and_not_their_sender(stack: AsyncExitStack) -> None:
    (a, hears_a), (b, hears_b) = await connect(stack), await connect(stack)
    sent = [WORK, Hint(HintKind.RUNNING, "0196-a"), Hint(HintKind.ENDED, "0196-a"), Hint(HintKind.CANCEL, "0196-b")]
    for hint in sent:
        a.send(hint)
    assert [await hears_b.next() for _ in sent] == sent
    b.send(WORK)
    # The first hint that `a` receives is the other's, not its own.
    assert await hears_a.next() == WORK


async def test_last_hints_are_sent_before_the_process_stops(stack: AsyncExitStack) -> None:
    _, follower = await connect(stack)
    async with AsyncExitStack() as leaving:
        hints, _ = await connect(leaving)
        hints.send(WORK)
    assert await follower.next() == WORK


async def test_foreign_notifications_are_ignored(stack: AsyncExitStack) -> None:
    hints, _ = await connect(stack)
    _, follower = await connect(stack)
    with psycopg.connect(server().url("postgres"), autocommit=True) as connection:
        for payload in ("", "work", "nonsense 1", "\N{SNOWMAN}"):
            connection.execute("SELECT pg_notify('allaprima_news', %s)", [payload])
    assert await follower.next() == WORK
    hints.send(Hint(HintKind.ENDED, "1"))
    assert await follower.next() == Hint(HintKind.ENDED, "1")


async def test_lost_connection_is_replaced_and_reported(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    hints, hears = await connect(stack)
    _, other = await connect(stack)
    with psycopg.connect(server().url("postgres"), autocommit=True) as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'allaprima hints'"
        connection.execute(ended)
    assert await hears.next() == Reconnected()
    assert await other.next() == Reconnected()
    hints.send(WORK)
    assert await other.next() == WORK
    assert "hints of other processes are lost until the database answers" in caplog.text


async def test_silent_server_is_left_and_hints_are_sent_when_it_answers(stack: AsyncExitStack) -> None:
    """The server's process is stopped, so that the kernel still acknowledges every packet."""
    silent = PostgresHints(server().url("postgres"), keepalive_s=0.1, answer_s=0.3)
    async with silent.follow() as received:
        follower = Follower(received)
        assert await follower.next() == Reconnected()
        stopped = server().signal_backends("allaprima hints", signal.SIGSTOP)
        try:
            # The new connection has another process of the server.
            assert await follower.next() == Reconnected()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        _, other = await connect(stack)
        silent.send(WORK)
        assert await other.next() == WORK
    await silent.close()


async def test_hints_wait_for_a_database_that_is_away(stack: AsyncExitStack) -> None:
    """Opening and closing do not fail while no server listens; polling remains."""
    hints = await stack.enter_async_context(open_hints("postgresql://allaprima:hunter2@127.0.0.1:1/store"))
    hints.send(WORK)
