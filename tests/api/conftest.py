"""One service for all tests of a module, for modules whose tests change no state that another test reads.

Such a module runs in one event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
All tests run on both databases.
"""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from allaprima.service.app import Service
from tests.both_databases import backend, tmp_path
from tests.databases import releasing
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

__all__ = ["backend", "tmp_path"]


@pytest.fixture(scope="module")
def shared_clock() -> FakeClock:
    """The clock of the shared service."""
    return FakeClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tmp_path_factory: pytest.TempPathFactory, shared_clock: FakeClock, backend: str
) -> AsyncIterator[Service]:
    with releasing(tmp_path_factory.mktemp("shared") / backend) as folder:
        async with open_service(folder, FakeEngine(), shared_clock) as opened:
            yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_client(shared: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a valid key."""
    async with client_of(shared, key=shared.first_key) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_anonymous(shared: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    async with client_of(shared) as opened:
        yield opened
