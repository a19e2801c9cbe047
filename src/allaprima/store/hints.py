"""Hints by PostgreSQL's LISTEN and NOTIFY, on one connection of the process.

A hint is sent in a transaction of its own: at the commit of a transaction with a NOTIFY the server takes a lock that
all such commits share, so that a NOTIFY in the transaction of a job would let one such transaction commit at a time.
"""

import asyncio
import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import psycopg
from psycopg import pq

from allaprima.domain.hints import Hint, HintKind, Reconnected
from allaprima.domain.ports import Hints
from allaprima.store.memory_hints import MemoryHints

logger = logging.getLogger(__name__)

WORK_CHANNEL, NEWS_CHANNEL = "allaprima_work", "allaprima_news"
#: Seconds without traffic after which the server is asked for an answer, and seconds that it has for an answer.
KEEPALIVE_S, ANSWER_S = 10.0, 5.0
#: Seconds before the first new connection, and the longest wait before a later one.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
#: Most hints that wait to be sent; older ones are dropped.
MAX_WAITING = 10_000
#: Longest wait for the end of the thread, in seconds, while a connection is being opened.
STOP_S = 6.0
#: Most hints of one statement.
_BATCH = 500
_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "allaprima hints",
}
_LISTEN = f"LISTEN {WORK_CHANNEL}; LISTEN {NEWS_CHANNEL}".encode()
_NOTIFY = b"SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS hints (channel, payload)"


class PostgresHints(MemoryHints):
    """Hints of one database. Use `open_hints`."""

    def __init__(self, url: str, keepalive_s: float = KEEPALIVE_S, answer_s: float = ANSWER_S) -> None:
        """url: of the database itself, since a pooler of transactions passes no notifications on."""
        super().__init__()
        self._url = url
        self._keepalive_s = keepalive_s
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Hint] = deque(maxlen=MAX_WAITING)
        self._stopping = threading.Event()
        # A byte in the pipe wakes the thread.
        self._awake, self._waker = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
        self._thread.start()

    def send(self, hint: Hint) -> None:
        """See `Hints`."""
        if not self._stopping.is_set():
            self._waiting.append(hint)
            self._wake()

    async def close(self) -> None:
        """Send the waiting hints, if there is a connection, and close it."""
        self._stopping.set()
        self._wake()
        await asyncio.to_thread(self._thread.join, STOP_S)
        # A thread that still connects ends with the process.
        if not self._thread.is_alive():
            os.close(self._awake)
            os.close(self._waker)

    def _wake(self) -> None:
        # A full pipe wakes the thread, too.
        with suppress(BlockingIOError):
            os.write(self._waker, b".")

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                # Without psycopg's own context, which would wait for the answer to a rollback.
                with closing(psycopg.connect(self._url, autocommit=True, **_CONNECTION)) as connection:  # type: ignore[arg-type]
                    channel = _Channel(connection.pgconn, self._answer_s)
                    channel.ask(_LISTEN)
                    failures = 0
                    self._hand_over(Reconnected())
                    self._exchange(channel)
            except (psycopg.Error, OSError) as exc:
                if not failures:
                    logger.warning("hints of other processes are lost until the database answers: %s", _reason(exc))
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures, 10))
                failures += 1
                self._stopping.wait(wait_s * random.uniform(0.5, 1.5))

    def _exchange(self, channel: "_Channel") -> None:
        """Receive and send hints until `close` is called. Raises `psycopg.OperationalError` for a lost connection."""
        asked_at = time.monotonic()
        while True:
            for notification in channel.notifications():
                self._receive(notification)
            is_stopping = self._stopping.is_set()
            while self._waiting:
                self._send_batch(channel)
                asked_at = time.monotonic()
            if is_stopping:
                return
            if (left_s := asked_at + self._keepalive_s - time.monotonic()) <= 0:
                channel.ask(b"SELECT 1")
                asked_at = time.monotonic()
                continue
            channel.wait(left_s, self._awake)
            with suppress(BlockingIOError):
                os.read(self._awake, 65_536)

    def _send_batch(self, channel: "_Channel") -> None:
        # Many jobs may be queued while one statement is answered; one hint wakes for all of them.
        hints = dict.fromkeys(self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting))))
        channels = [WORK_CHANNEL if hint.kind == HintKind.WORK else NEWS_CHANNEL for hint in hints]
        channel.ask(_NOTIFY, [_array(channels), _array([hint.encode() for hint in hints])])

    def _receive(self, notification: pq.PGnotify) -> None:
        if (hint := Hint.parse(notification.extra.decode("utf-8", "replace"))) is not None:
            self._hand_over(hint)

    def _hand_over(self, item: Hint | Reconnected) -> None:
        # The loop may already be closed while the server stops.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.deliver, item)


class _Channel:
    """A connection whose every answer has a deadline. psycopg's own methods wait for as long as the socket lives."""

    def __init__(self, connection: pq.abc.PGconn, answer_s: float) -> None:
        self._connection = connection
        self._answer_s = answer_s

    def wait(self, seconds: float, other: int) -> None:
        """Wait for data of the server, or of another file descriptor, or for some seconds."""
        if self._connection.socket in _poll({self._connection.socket: select.POLLIN, other: select.POLLIN}, seconds):
            self._connection.consume_input()

    def notifications(self) -> list[pq.PGnotify]:
        """Return the notifications of other processes that have arrived."""
        found = []
        while (notification := self._connection.notifies()) is not None:
            if notification.be_pid != self._connection.backend_pid:
                found.append(notification)
        return found

    def ask(self, statement: bytes, parameters: list[bytes] | None = None) -> None:
        """Run a statement. Raises `psycopg.OperationalError` when it fails or is not answered in time."""
        connection, deadline = self._connection, time.monotonic() + self._answer_s
        if parameters is None:
            connection.send_query(statement)
        else:
            connection.send_query_params(statement, parameters)
        while connection.flush():
            self._until_ready(deadline, is_writing=True)
        while True:
            while connection.is_busy():
                self._until_ready(deadline)
            if (result := connection.get_result()) is None:
                return
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise psycopg.OperationalError("the server refused a statement for hints")

    def _until_ready(self, deadline: float, *, is_writing: bool = False) -> None:
        events = select.POLLIN | (select.POLLOUT if is_writing else 0)
        found = _poll({self._connection.socket: events}, deadline - time.monotonic())
        if not found:
            raise psycopg.OperationalError("the server does not answer")
        if found[self._connection.socket] & ~select.POLLOUT:
            self._connection.consume_input()


def _poll(wanted: dict[int, int], seconds: float) -> dict[int, int]:
    """Wait for events of file descriptors; return those that occurred. `select` takes no descriptor above 1023."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll(max(0.0, seconds) * 1000))


def _reason(exc: Exception) -> str:
    """Return the first line of libpq's message. Other errors may quote the URL, which may have a password."""
    is_of_server = isinstance(exc, psycopg.OperationalError) and str(exc)
    return str(exc).splitlines()[0] if is_of_server else type(exc).__name__


def _array(texts: list[str]) -> bytes:
    """Return an array literal. The texts have no quotes and no backslashes."""
    return "{{{}}}".format(",".join(f'"{text}"' for text in texts)).encode()


@asynccontextmanager
async def open_hints(url: str) -> AsyncIterator[Hints]:
    """Exchange hints through a database until the context exits. While it can't be reached, hints are lost.

    url: `postgresql://...`, of the server itself and not of a pooler.
    """
    hints = PostgresHints(url)
    try:
        yield hints
    finally:
        await hints.close()
