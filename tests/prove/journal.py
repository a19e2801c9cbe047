"""Clients that write down what they were promised, and what a data folder says of it afterwards."""

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

from prove.conftest import BODY


@dataclass
class Journal:
    """Threads that submit jobs, each with a key of its own, again and again until it is acknowledged."""

    url: str
    key: str
    #: Idempotency key to the job that was promised for it.
    promised: dict[str, str] = field(default_factory=dict)
    #: How often a request had no answer and was repeated.
    repeated: int = 0
    _names: Iterator[int] = field(default_factory=itertools.count)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def writing(self, threads: int) -> Iterator[None]:
        """Submit while the context lasts; what was begun is brought to its acknowledgement."""
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
                self._submit(client, f"key {next(self._names)}")
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
            assert self.promised.setdefault(name, job_id) == job_id, "a promise was given twice, and was another"
            return
        raise AssertionError(f"{name} was never acknowledged")


def read(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Ask a data folder's database."""
    with closing(sqlite3.connect(f"file:{folder / 'allaprima.db'}?mode=ro", uri=True, timeout=60)) as raw:
        return raw.execute(statement).fetchall()


def wait_until_done(folder: Path, limit_s: float = 600) -> None:
    """Wait until no job is unfinished."""
    deadline = time.monotonic() + limit_s
    while read(folder, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')") != [(0,)]:
        assert time.monotonic() < deadline, "some jobs never end"
        time.sleep(0.1)


def check_bill(folder: Path) -> int:
    """Assert that every way to add up the money gives one sum; return it."""
    [(usage,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM usage")
    [(charged,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'CHARGE'")
    [(slots,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM usage_slots")
    [(paid,)] = read(folder, "SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'TOPUP'")
    [(balance, held)] = read(folder, "SELECT sum(balance), sum(held) FROM accounts")
    assert usage == charged == slots
    assert (balance, held) == (paid - charged, 0)
    assert balance >= 0
    return usage


def check_pictures(folder: Path) -> int:
    """Assert that every picture's file is there and whole; return how many there are."""
    rows = read(folder, "SELECT object_name, sha256 FROM images")
    for name, digest in rows:
        assert hashlib.sha256((folder / "images" / str(name)).read_bytes()).hexdigest() == digest
    return len(rows)
