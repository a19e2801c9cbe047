"""A browser and a server for the tests of the playground, shared by the tests of one module."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.acceptance.browser import chromium
from tests.acceptance.processes import Server, allaprima


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that charges for images."""
    prices = '{"flux/schnell": {"megapixel": 0.003}, "allaprima/sketch": {"megapixel": 0.001}}'
    started = serve_module(tmp_path_factory.mktemp("playground") / "data", ALLAPRIMA_BILLING__PRICES=prices)
    account = started.query("SELECT id FROM accounts")[0][0]
    done = allaprima(
        "accounts", "credit", account, "25", "--data-dir", started.data_dir, folder=started.data_dir.parent
    )
    assert done.returncode == 0, done.stderr
    return started
