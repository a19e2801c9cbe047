"""Clients that log which jobs were acknowledged to them, and checks of a deployment against the log."""

import hashlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2

from tests.stress.conftest import BODY
from tests.stress.deployments import Deployment, Read
from tests.waiting import until

#: Seconds between two requests of a thread.
PAUSE_S = 0.8


@dataclass
class RequestLog:
    """Threads that submit jobs, each request with its own idempotency key, repeated until it is acknowledged."""

    #: The servers; each request goes to the next one.
    urls: Sequence[str]
    key: str
    #: Idempotency key to the id of the acknowledged job.
    acknowledged: dict[str, str] = field(default_factory=dict)
    #: Number of requests that had no response and were repeated.
    repeated: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _turns: Iterator[str] = field(init=False)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin with the first server."""
        self._turns = itertools.cycle(self.urls)

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
        with httpx2.Client(timeout=30) as client:
            while not self._stopping.is_set():
                self._submit(client, f"key {next(self._numbers)}")
                self._stopping.wait(PAUSE_S)

    def _submit(self, client: httpx2.Client, name: str) -> None:
        headers = {"authorization": f"Bearer {self.key}", "idempotency-key": name}

        def acknowledged() -> httpx2.Response | None:
            try:
                answer = client.post(f"{next(self._turns)}/v1/jobs", json=BODY, headers=headers)
            except httpx2.TransportError:
                self.repeated += 1
                return None
            return None if answer.status_code == 503 else answer

        answer = until(acknowledged, f"an acknowledgement of {name}", every_s=0.1)
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        assert self.acknowledged.setdefault(name, job_id) == job_id, "two jobs were acknowledged for one key"


def wait_until_done(read: Read, limit_s: float = 600) -> None:
    """Wait until no job is unfinished."""
    unfinished = "SELECT id FROM jobs WHERE state IN ('queued', 'running')"
    until(lambda: read(unfinished) == [] or None, "the jobs' ends", every_s=0.1, limit_s=limit_s)


def check_billing(read: Read) -> int:
    """Assert that usage, its buckets, the ledger and the balances agree; return the credits that were charged."""
    [(usage,)] = read("SELECT coalesce(sum(credits), 0) FROM usage")
    [(charged,)] = read("SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'CHARGE'")
    [(buckets,)] = read("SELECT coalesce(sum(credits), 0) FROM usage_buckets")
    [(paid,)] = read("SELECT coalesce(sum(credits), 0) FROM ledger WHERE direction = 'TOPUP'")
    [(balance, held)] = read("SELECT sum(balance), sum(held) FROM accounts")
    assert usage == charged == buckets
    assert (balance, held) == (paid - charged, 0)
    assert balance >= 0
    return int(usage)


def check_images(deployment: Deployment) -> int:
    """Assert that every image is stored with its bytes; return the number of images."""
    rows = deployment.read("SELECT object_name, sha256 FROM images")
    for name, digest in rows:
        assert hashlib.sha256(deployment.image(str(name))).hexdigest() == digest
    return len(rows)
