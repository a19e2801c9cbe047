"""Fixtures of all tests: a clean environment, and the real service and API over a fake engine and a fake clock.

Each fixture imports what it needs when it is used, so that tests of the networks need no web framework.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx2

    from allaprima.service.app import Service
    from tests.fakes import FakeClock, FakeEngine


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


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    from tests.fakes import open_service

    async with open_service(tmp_path, engine, clock) as opened:
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
