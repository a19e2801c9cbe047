"""Stress tests: the service under load, kills and real HTTP; short in `make test`, long with `--full`.

Each test prints its figures.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import serve, server, servers
from tests.acceptance.processes import Server

#: Allows only the smallest images, so that a test can generate many.
SMALL = {
    "ALLAPRIMA_ENGINE__MAX_SIDE": "64",
    "ALLAPRIMA_ENGINE__MAX_STEPS": "1",
    "ALLAPRIMA_ENGINE__MAX_IMAGES": "1",
    "ALLAPRIMA_ENGINE__QUEUE_SIZE": "100000",
}
PRICE = {"ALLAPRIMA_BILLING__PRICES": '{"flux/schnell": {"megapixel": 1.0}}'}
#: Price of one image of 64x64 pixels.
CREDITS = 8192
BODY = {
    "model": "flux/schnell",
    "prompt": "a boat",
    "image_size": {"width": 64, "height": 64},
    "num_inference_steps": 1,
}
#: The acceptance tests' fixtures.
__all__ = ["serve", "server"]


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the tests run at their full length."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line, although pytest captures the output."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="")  # noqa: T201 - figures are for people

    return show


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[Server]:
    """A server that generates small images for credits, on an empty data folder."""
    with servers() as serve:
        yield serve(tmp_path / "data", **SMALL, **PRICE)
