"""A server for the programs of `examples/`, which may send webhooks to this machine."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import servers
from tests.acceptance.processes import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose webhooks may be sent to loopback addresses."""
    networks = '["127.0.0.0/8"]'
    with servers() as serve:
        yield serve(tmp_path_factory.mktemp("server") / "data", ALLAPRIMA_WEBHOOKS__ALLOWED_NETWORKS=networks)
