"""A server shared by tests that do not change it, and a factory of servers to stop, kill or configure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import Server

Serve = Callable[..., Server]


@contextmanager
def servers() -> Iterator[Serve]:
    """Yield a factory of servers. Those still running at the end are stopped, and must exit with 0 and no traceback."""
    started: list[Server] = []

    def serve(data_dir: Path, *arguments: object, **settings: str) -> Server:
        started.append(Server(data_dir, *arguments, **settings))
        return started[-1]

    try:
        yield serve
        running = [server for server in started if server.is_running]
        for server in running:
            assert server.stop() == 0, server.output
            assert "Traceback" not in server.output
    finally:
        for server in started:
            server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose data folder was empty when it started."""
    with servers() as serve:
        yield serve(tmp_path_factory.mktemp("server") / "data")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start further servers: `serve(data_dir, *arguments, **environment)`."""
    with servers() as factory:
        yield factory


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Serve]:
    """Start further servers, shared by the tests of one module."""
    with servers() as factory:
        yield factory
