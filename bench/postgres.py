"""The store on PostgreSQL: durability, admissions per second, accept latency, and a restart of the server.

A PostgreSQL server of this script's own on loopback, on the same cores. Each figure has its control. Prints a table in
Markdown with machine and date. Takes about six minutes.

- Crash: jobs are admitted one after another, and the server is stopped at once after the last answer, ten times. The
  control commits without the flush that precedes an answer; it must lose jobs, or the figure shows nothing.
- Admissions: jobs per second that eight connections admit for one key, with the flush after the commit that releases
  the locks, divided by those with the flush under the locks, measured alternately. Where the disk needs less than 3 ms
  for a flush, the server waits for 3 ms before each.
- Accept: the latency of `POST /v1/jobs` from eight clients while the same cores generate, with an empty queue and with
  ten thousand waiting jobs, and with a data folder.
- Restart: PostgreSQL is stopped at once and started under load: what clients got meanwhile, and the seconds from its
  first answer to the end of the next job.
"""

import argparse
import asyncio
import collections
import datetime as dt
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2
import psycopg
from sqlalchemy import Connection

from load import BODY, at, submit_for
from service import cpu_name, server

sys.path.insert(0, str(Path(__file__).parents[1]))
from allaprima.bootstrap.operator import open_operator
from allaprima.domain.accounts import Account, ApiKey, KeySpec
from allaprima.settings import Settings
from allaprima.store.accounts import AccountRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from allaprima.store.postgres import PostgresDatabase, T, open_postgres
from tests.store.factories import new_job
from tests.store.postgres_server import PostgresServer

PARTS = ("crash", "admissions", "accept", "restart")
CRASHES, PER_CRASH = 10, 25
ROUNDS, ROUND_S, ACCEPT_S = 5, 4.0, 15.0
QUEUED = 10_000
#: The duration of a flush below which the server waits before each, in seconds.
SLOW_FLUSH_S = 0.003
NOW = 1_700_000_000.0


class UnflushedDatabase(PostgresDatabase):
    """Acknowledges hot transactions that are not on the disk."""

    async def write_hot(self, transaction: Callable[[Connection], T]) -> T:
        """Commit without a flush."""

        def unflushed(connection: Connection) -> T:
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            return transaction(connection)

        return await self.write(unflushed)


class LockedDatabase(PostgresDatabase):
    """Flushes hot transactions while they hold their locks."""

    async def write_hot(self, transaction: Callable[[Connection], T]) -> T:
        """Commit as any other transaction."""
        return await self.write(transaction)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parts = set(parser.parse_args().parts)
    print(f"{cpu_name()}, {os.cpu_count()} cores, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print("\n| figure | value |\n|---|---|")
    for name, measure in (("crash", crash), ("admissions", admissions), ("accept", accept), ("restart", restart)):
        if name in parts:
            measure()


async def open_with_key(kind: type[PostgresDatabase], url: str) -> tuple[PostgresDatabase, ApiKey]:
    """Open a database; return it with its key, which is created if missing."""
    database = await open_postgres(url)
    database.__class__ = kind
    key = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
    if not await AccountRepository(database).all():
        await AccountRepository(database).add(Account("account", "default", NOW))
        await KeyRepository(database).add(key, "hash")
    return database, key


# Crash --------------------------------------------------------------------------------------------------------------


def crash() -> None:
    """Print how many acknowledged jobs crashes of the database lost, with the flush and without it."""
    # The server's own flush of asynchronous commits would hide a missing one.
    own = PostgresServer(wal_writer_delay="10s")
    try:
        for kind, what in ((PostgresDatabase, "as it is"), (UnflushedDatabase, "control without the flush")):
            url = own.create(kind.__name__)
            lost = sum(asyncio.run(lost_by_crash(own, kind, url)) for _ in range(CRASHES))
            total = CRASHES * PER_CRASH
            print(f"| acknowledged jobs lost in {CRASHES} crashes, {what} | {lost} of {total} |", flush=True)
    finally:
        own.close()


async def lost_by_crash(own: PostgresServer, kind: type[PostgresDatabase], url: str) -> int:
    """Admit jobs one after another, and stop the server at once; return how many are missing."""
    database, key = await open_with_key(kind, url)
    transitions = JobTransitions(database)
    acknowledged = [(await transitions.admit(new_job(key), 10**6)).id for _ in range(PER_CRASH)]
    own.restart_at_once()
    await database.close()
    with psycopg.connect(url) as connection:
        kept = {job_id for (job_id,) in connection.execute("SELECT id FROM jobs")}
    return len(set(acknowledged) - kept)


# Admissions ---------------------------------------------------------------------------------------------------------


def admissions() -> None:
    """Print the jobs per second that eight connections admit."""
    own = PostgresServer()
    flush_s = flush_seconds(own)
    own.close()
    delay = {"commit_delay": "3000", "commit_siblings": "0"} if flush_s < SLOW_FLUSH_S else {}
    own = PostgresServer(**delay)
    try:
        rates = collections.defaultdict(list)
        for number in range(ROUNDS):
            for kind in (PostgresDatabase, LockedDatabase):
                url = own.create(f"{kind.__name__}{number}")
                rates[kind].append(asyncio.run(admission_rate(kind, url)))
        waited = f"{1000 * flush_s:.1f} ms a flush" + (", 3 ms waited before each" if delay else "")
        after, under = (statistics.median(rates[kind]) for kind in (PostgresDatabase, LockedDatabase))
        print(f"| admissions per second, 8 connections, {waited}: flush after the locks | {after:.0f} |")
        print(f"| the same, control with the flush under the locks | {under:.0f} |")
        print(f"| ratio | {after / under:.2f} |", flush=True)
    finally:
        own.close()


def flush_seconds(own: PostgresServer) -> float:
    """Return the usual seconds of a durable commit."""
    seconds = []
    with psycopg.connect(own.url("postgres"), autocommit=True) as connection:
        for _ in range(50):
            began = time.perf_counter()
            connection.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


async def admission_rate(kind: type[PostgresDatabase], url: str) -> float:
    """Admit jobs from eight connections for some seconds; return the jobs per second."""
    # Two servers with four writing connections each.
    opened = [await open_with_key(kind, url) for _ in range(2)]
    deadline, count = time.perf_counter() + ROUND_S, 0

    async def admit(database: PostgresDatabase, key: ApiKey) -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            await JobTransitions(database).admit(new_job(key), 10**6)
            count += 1

    await asyncio.gather(*(admit(*pair) for pair in opened for _ in range(4)))
    for database, _ in opened:
        await database.close()
    return count / ROUND_S


# A whole server -----------------------------------------------------------------------------------------------------


def accept() -> None:
    """Print the latency of `POST /v1/jobs` with an empty queue and a long one, and with a data folder."""
    own = PostgresServer()
    try:
        folder_p50 = accept_latency("a data folder", None)
        usual, long = (
            accept_latency(f"PostgreSQL, {queued} jobs waiting", own.create(f"accept{queued}"), queued)
            for queued in (0, QUEUED)
        )
        print(f"| p50 on PostgreSQL over that with a data folder | {usual / folder_p50:.2f} |")
        print(f"| p50 with {QUEUED} waiting over that with none | {long / usual:.2f} |", flush=True)
    finally:
        own.close()


def accept_latency(what: str, url: str | None, queued: int = 0) -> float:
    """Print the latency with a database; return its median in milliseconds. url: None: SQLite in a data folder."""
    settings = {"ALLAPRIMA_ENGINE__QUEUE_SIZE": "1000000"}
    key = ""
    if url:
        settings["ALLAPRIMA_STORE__DATABASE_URL"] = url
        key = make_key(url)
        asyncio.run(fill_queue(url, queued))
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "data", key=key, **settings) as (address, own_key, _process),
    ):
        time.sleep(3)
        accepted = asyncio.run(submit_for(address, own_key, 8, ACCEPT_S, 8.0))
    milliseconds = sorted(1000 * seconds for seconds in accepted)
    p50, p99 = at(milliseconds, 0.5), at(milliseconds, 0.99)
    print(f"| accept, 8 clients, {what}, ms, p50 / p99 | {p50:.1f} / {p99:.1f} |", flush=True)
    return p50


def make_key(url: str) -> str:
    """Create an account with a key in a database; return the key."""

    async def create() -> str:
        async with open_operator(Settings(store={"database_url": url})) as operator:
            account = await operator.accounts.create("default")
            _, key = await operator.keys.create(KeySpec("bench"), account.id)
            assert key is not None
            return key

    return asyncio.run(create())


async def fill_queue(url: str, number: int) -> None:
    """Store queued jobs of another key of the account."""
    database = await open_postgres(url)
    [account] = await AccountRepository(database).all()
    key = ApiKey(id="other", account_id=account.id, name="other", prefix="other123", created_at=NOW, updated_at=NOW)
    await KeyRepository(database).add(key, "hash of another key")
    transitions = JobTransitions(database)
    for _ in range(0, number, 50):
        await asyncio.gather(*(transitions.admit(new_job(key), 10**6) for _ in range(50)))
    await database.close()


def restart() -> None:
    """Print what clients got while PostgreSQL restarted, and the seconds until the next job ended."""
    own = PostgresServer()
    try:
        url = own.create("restart")
        key = make_key(url)
        with (
            tempfile.TemporaryDirectory() as folder,
            server(Path(folder), key=key, ALLAPRIMA_STORE__DATABASE_URL=url) as (address, _, _process),
        ):
            ends, answers = watch_restart(own, address, key)
        print(f"| answers during three restarts at once of PostgreSQL | {dict(answers)} |")
        print(f"| seconds from its return to the next end of a job, each | {spread(ends)} |", flush=True)
    finally:
        own.close()


def spread(values: Sequence[float]) -> str:
    """Return values as text."""
    return ", ".join(f"{value:.1f}" for value in values)


def watch_restart(own: PostgresServer, address: str, key: str) -> tuple[list[float], "collections.Counter[str]"]:
    """Restart the server three times under load; return the seconds to the next end, and the answers' counts."""
    answers: collections.Counter[str] = collections.Counter()
    finished: list[float] = []
    stopping = threading.Event()

    def work() -> None:
        with httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            while not stopping.is_set():
                answer = client.post("/v1/images/generations/", json=BODY)
                answers[name_of(answer)] += 1
                if answer.status_code == httpx2.codes.OK:
                    finished.append(time.perf_counter())
                else:
                    stopping.wait(0.1)

    clients = [threading.Thread(target=work) for _ in range(4)]
    for client in clients:
        client.start()
    ends = []
    try:
        for _ in range(3):
            time.sleep(5)
            own.restart_at_once()
            returned = time.perf_counter()
            while not (after := [end for end in finished if end > returned]):
                time.sleep(0.02)
            ends.append(min(after) - returned)
    finally:
        stopping.set()
        for client in clients:
            client.join()
    return ends, answers


def name_of(answer: httpx2.Response) -> str:
    """Return an answer's status, marked if a 503 lacks its `Retry-After`."""
    is_complete = answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE or "retry-after" in answer.headers
    return str(answer.status_code) if is_complete else f"{answer.status_code} without Retry-After"


if __name__ == "__main__":
    main()
