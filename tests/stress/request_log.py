"""Clients that log which jobs were acknowledged to them, and checks of a data folder against the log."""

import hashlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.stress.conftest import BODY


@dataclass
class RequestLog:
    """Threads that submit jobs, each request with its own idempotency key, repeated until it is acknowledged."""

    url: str
    key: str
    #: Idempotency key to the id of the acknowledged job.
    acknowledged: dict[str, str] = field(default_factory=dict)
    #: How often a request had no answer and was repeated.
    repeated: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def submitting(self, threads: int) -> Iterator[None]:
        """Submit while the context lasts; at its end every request that was sent is acknowledged."""
        workers = [threading.Thread(target=self._work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._stopping.set()
            for worker in workers:
                worker.join()

    def _work(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=30) as client:
            while not self._stopping.is_set():
                self._submit(client, f"key {next(self._numbers)}")
                time.sleep(0.8)

    def _submit(self, client: httpx2.Client, name: str) -> None:
        headers = {"authorization": f"Bearer {self.key}", "idempotency-key": name}
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                answer = client.post("/v1/jobs", json=BODY, headers=headers)
            except httpx2.TransportError:
                self.repeated += 1
                time.sleep(0.2)
                continue
            if answer.status_code == 503:
                time.sleep(0.05)
                continue
            assert answer.status_code == 202, answer.text
            job_id = answer.json()["id"]
            assert self.acknowledged.setdefault(name, job_id) == job_id, "two jobs were acknowledged for one key"
            return
        raise AssertionError(f"{name} was never acknowledged")


def read(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Read from a data folder's database."""
    with closing(sqlite3.connect(f"file:{folder / 'allaprima.db'}?mode=ro", uri=True, timeout=60)) as raw:
        return raw.execute(statement).fetchall()


def wait_until_done(folder: Path, limit_s: float = 600) -> None:
    """Wait until no job is unfinished."""
    deadline = time.monotonic() + limit_s
    while read(folder, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')") != [(0,)]:
        assert time.monotonic() < deadline, "some jobs never end"
        time.sleep(0.1)


def check_bill(folder: Path) -> int:
    """Assert that usage, its buckets, the ledger and the balances agree; return the credits that were charged."""
    [(usage,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM usage")
    [(charged,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'CHARGE'")
    [(buckets,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM usage_buckets")
    [(paid,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'TOPUP'")
    [(balance, held)] = read(folder, "SELECT sum(balance), sum(held) FROM accounts")
    assert usage == charged == buckets
    assert (balance, held) == (paid - charged, 0)
    assert balance >= 0
    return usage


def check_images(folder: Path) -> int:
    """Assert that every image's file is complete; return the number of images."""
    rows = read(folder, "SELECT object_name, sha256 FROM images")
    for name, digest in rows:
        assert hashlib.sha256((folder / "images" / str(name)).read_bytes()).hexdigest() == digest
    return len(rows)
