"""Fixtures of all tests: a clean environment, and the real service and API over a fake engine and a fake clock.

Each fixture imports what it needs when it is used, so that tests of the networks need no web framework.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import httpx2

    from allaprima.domain.ports import ObjectStore
    from allaprima.service.app import Service
    from tests.fakes import FakeClock, FakeEngine
    from tests.seaweed import Seaweed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`: run the stress tests at their full length, minutes each, as `make prove` does."""
    parser.addoption("--full", action="store_true", help="run the stress tests at their full length")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Tests neither read nor write the user's cache.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in os.environ:
        if name.upper().startswith("ALLAPRIMA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def clock() -> FakeClock:
    from tests.fakes import FakeClock

    return FakeClock()


@pytest.fixture
def engine() -> FakeEngine:
    from tests.fakes import FakeEngine

    return FakeEngine()


#: Modules of the images' tests, which run on the folder with SQLite and on a bucket with PostgreSQL.
ON_EVERY_IMAGE_STORE = (
    "tests.service.test_images",
    "tests.api.test_gallery",
    "tests.api.test_thumbnails",
    "tests.api.test_archives",
    "tests.api.test_damaged_files",
)


@pytest.fixture(scope="module")
def backend() -> str:
    """The name of the database. The tests of the service and of the API run on both."""
    from tests.databases import SQLITE

    return SQLITE


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server of this test worker."""
    from tests.seaweed import Seaweed

    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def bucket_url(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The setting of an empty store in a bucket, with credentials in the environment."""
    from tests.seaweed import CREDENTIALS

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return seaweed.address()


@pytest.fixture
def image_store(request: pytest.FixtureRequest, backend: str) -> dict[str, Any]:
    """Settings of the image store: the folder, or a bucket where the module's tests run on both."""
    from tests.databases import POSTGRESQL

    is_bucket = request.module.__name__ in ON_EVERY_IMAGE_STORE and backend == POSTGRESQL
    return {"bucket": request.getfixturevalue("bucket_url")} if is_bucket else {}


@pytest.fixture
def stored(tmp_path: Path, image_store: dict[str, Any]) -> ObjectStore:
    """The files of the service's images."""
    from allaprima.domain.bucket import parse_bucket
    from allaprima.store.objects.bucket import BucketObjectStore
    from allaprima.store.objects.local import LocalObjectStore

    if url := image_store.get("bucket"):
        return BucketObjectStore(parse_bucket(url))
    return LocalObjectStore(tmp_path / "images")


@pytest.fixture
async def service(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, image_store: dict[str, Any]
) -> AsyncIterator[Service]:
    from tests.fakes import open_service

    async with open_service(tmp_path, engine, clock, store=image_store) as opened:
        yield opened


@pytest.fixture
async def key(service: Service) -> str:
    """The first key, which is valid."""
    assert service.first_key is not None
    return service.first_key


@pytest.fixture
async def client(service: Service, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a valid key."""
    from tests.fakes import client_of

    async with client_of(service, key=key) as opened:
        yield opened


@pytest.fixture
async def anonymous(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    from tests.fakes import client_of

    async with client_of(service) as opened:
        yield opened
