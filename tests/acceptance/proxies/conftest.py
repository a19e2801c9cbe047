"""One server behind the proxies that `deploy/` configures: nginx and Caddy, on a host of its own and below a path."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from tests.acceptance.processes import LIMIT_S, Server
from tests.acceptance.proxies.processes import Proxy, caddy, nginx, trusting_all

KINDS = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that trusts the proxies on 127.0.0.1, and allows any other address two connections."""
    settings = {
        "ALLAPRIMA_SERVER__TRUSTED_PROXIES": '["127.0.0.1", "::1"]',
        "ALLAPRIMA_SERVER__MAX_CONNECTIONS_PER_ADDRESS": "2",
        "ALLAPRIMA_SERVER__LOG_FORMAT": "json",
    }
    server = Server(tmp_path_factory.mktemp("proxied") / "data", **settings)
    try:
        yield server
        assert server.stop() == 0, server.output
        assert "Traceback" not in server.output
    finally:
        server.kill()


@pytest.fixture(scope="session")
def start_proxy(proxied: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Proxy]]:
    """Start a proxy by its name, such as `nginx path`, or return the one that runs."""
    running: dict[str, Proxy] = {}
    with ExitStack() as stack:

        def start(name: str) -> Proxy:
            if name not in running:
                kind, _, file = name.partition(" ")
                folder = tmp_path_factory.mktemp(kind)
                running[name] = stack.enter_context(KINDS[kind](file, folder, proxied.port))
            return running[name]

        yield start


@pytest.fixture(params=["nginx host", "nginx path", "caddy host", "caddy path"])
def proxy(request: pytest.FixtureRequest, start_proxy: Callable[[str], Proxy]) -> Proxy:
    """Each proxy that `deploy/` configures."""
    return start_proxy(request.param)


@pytest.fixture
def client(proxy: Proxy, proxied: Server) -> Iterator[httpx2.Client]:
    """A client of the server through the proxy, with a key."""
    headers = {"authorization": f"Bearer {proxied.key}"}
    with httpx2.Client(base_url=proxy.url, verify=trusting_all(), timeout=LIMIT_S, headers=headers) as opened:
        yield opened
