"""Clients that log which jobs were acknowledged to them, and checks of a data folder against the log."""

import hashlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.stress.conftest import BODY
from tests.waiting import until

#: Seconds between two requests of a thread.
PAUSE_S = 0.8


@dataclass
class RequestLog:
    """Threads that submit jobs, each request with its own idempotency key, repeated until it is acknowledged."""

    url: str
    key: str
    #: Idempotency key to the id of the acknowledged job.
    acknowledged: dict[str, str] = field(default_factory=dict)
    #: Number of requests that had no response and were repeated.
    repeated: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def submitting(self, threads: int) -> Iterator[None]:
        """Submit while the context lasts; when it ends, every request is acknowledged."""
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
                self._stopping.wait(PAUSE_S)

    def _submit(self, client: httpx2.Client, name: str) -> None:
        headers = {"authorization": f"Bearer {self.key}", "idempotency-key": name}

        def acknowledged() -> httpx2.Response | None:
            try:
                answer = client.post("/v1/jobs", json=BODY, headers=headers)
            except httpx2.TransportError:
                self.repeated += 1
                return None
            return None if answer.status_code == 503 else answer

        answer = until(acknowledged, f"an acknowledgement of {name}", every_s=0.1)
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        assert self.acknowledged.setdefault(name, job_id) == job_id, "two jobs were acknowledged for one key"


def read(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Read from a data folder's database."""
    with closing(sqlite3.connect(f"file:{folder / 'allaprima.db'}?mode=ro", uri=True, timeout=60)) as raw:
        return raw.execute(statement).fetchall()


def wait_until_done(folder: Path, limit_s: float = 600) -> None:
    """Wait until no job is unfinished."""
    unfinished = "SELECT id FROM jobs WHERE state IN ('queued', 'running')"
    until(lambda: read(folder, unfinished) == [] or None, "the jobs' ends", every_s=0.1, limit_s=limit_s)


def check_billing(folder: Path) -> int:
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
