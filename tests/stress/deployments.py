"""Where a stress test's servers keep their jobs and images: a data folder, or PostgreSQL and a bucket."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import obstore
import psycopg
from obstore.store import S3Store

from tests.acceptance.processes import allaprima
from tests.seaweed import BUCKET, CREDENTIALS, REGION, Seaweed
from tests.store.postgres_server import PostgresServer

#: Runs a query; returns its rows.
Read = Callable[[str], list[tuple[Any, ...]]]
_KEY = re.compile(r"\bap_[0-9A-Za-z]{36}\b")


class Deployment(Protocol):
    """A database and an object store."""

    #: How many servers may run on it at the same time.
    servers: int
    #: Environment variables of the servers.
    settings: dict[str, str]

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""

    def image(self, name: str) -> bytes:
        """Return the bytes of a stored image."""

    def objects(self) -> int:
        """Return the number of stored images, those without a row too."""

    def disturb(self, share: float) -> None:
        """Let the database or the object store fail, at their moments in the run. share: of the run, from 0 to 1."""


class Folder(Deployment):
    """A data folder, with the server's own failures alone."""

    servers = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings: dict[str, str] = {}

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """See `Deployment`."""
        with closing(sqlite3.connect(f"file:{self._folder / 'allaprima.db'}?mode=ro", uri=True, timeout=60)) as raw:
            return raw.execute(statement).fetchall()

    def image(self, name: str) -> bytes:
        """See `Deployment`."""
        return (self._folder / "images" / name).read_bytes()

    def objects(self) -> int:
        """See `Deployment`."""
        return len(list((self._folder / "images").iterdir()))

    def disturb(self, share: float) -> None:
        """See `Deployment`."""


class PostgresAndBucket(Deployment):
    """A PostgreSQL server, stopped at once twice, and SeaweedFS, killed once; two servers of allaprima."""

    servers = 2

    def __init__(self, folder: Path, postgres: PostgresServer, seaweed: Seaweed) -> None:
        self._postgres, self._seaweed = postgres, seaweed
        self._url = postgres.create("kills")
        self._prefix = "kills"
        self._left = [
            (1 / 3, postgres.restart_at_once),
            (1 / 2, self._restart_seaweed),
            (2 / 3, postgres.restart_at_once),
        ]
        self.settings = CREDENTIALS | {
            "ALLAPRIMA_STORE__DATABASE_URL": self._url,
            "ALLAPRIMA_STORE__BUCKET": seaweed.address(self._prefix),
        }
        account = ("accounts", "create", "default")
        assert allaprima(*account, folder=folder, **self.settings).returncode == 0

    def _restart_seaweed(self) -> None:
        self._seaweed.kill()
        self._seaweed.start()

    def read(self, statement: str) -> list[tuple[Any, ...]]:
        """See `Deployment`."""
        with psycopg.connect(self._url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def _store(self) -> S3Store:
        return S3Store(
            BUCKET,
            prefix=f"{self._prefix}/images",
            endpoint=self._seaweed.endpoint,
            region=REGION,
            access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def image(self, name: str) -> bytes:
        """See `Deployment`."""
        return bytes(obstore.get(self._store(), name).bytes())

    def objects(self) -> int:
        """See `Deployment`."""
        return sum(len(page) for page in obstore.list(self._store()))

    def disturb(self, share: float) -> None:
        """See `Deployment`."""
        while self._left and self._left[0][0] <= share:
            self._left.pop(0)[1]()


@contextmanager
def postgres_and_bucket(folder: Path) -> Iterator[PostgresAndBucket]:
    """Run the servers of a `PostgresAndBucket` while the context lasts."""
    postgres, seaweed = PostgresServer(), Seaweed(folder / "seaweed")
    try:
        seaweed.start()
        yield PostgresAndBucket(folder, postgres, seaweed)
    finally:
        seaweed.kill()
        postgres.close()


def first_key(folder: Path, deployment: Deployment, printed: list[str]) -> str:
    """Return a key of a deployment: the one that its first server printed, or a new one."""
    if printed:
        return printed[0]
    created = allaprima("keys", "create", "--name", "stress", folder=folder, **deployment.settings)
    assert created.returncode == 0, created.stderr
    [key] = _KEY.findall(created.stdout)
    return str(key)
