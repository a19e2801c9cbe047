"""What every test may ask for: a clean environment, and the real service and API over a fake engine and clock."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from allaprima.service.service import Service
from fakes import FakeClock, FakeEngine, client_of, open_service


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("ALLAPRIMA_"):
            monkeypatch.delenv(name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    async with open_service(tmp_path, engine, clock) as opened:
        yield opened


@pytest.fixture
async def key(service: Service) -> str:
    assert service.first_key is not None
    return service.first_key


@pytest.fixture
async def client(service: Service, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a good key."""
    async with client_of(service, key=key) as opened:
        yield opened


@pytest.fixture
async def anonymous(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    async with client_of(service) as opened:
        yield opened
