"""Floods of the front door: memory and descriptors are bounded, and are given back."""

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import servers
from tests.acceptance.processes import Server
from tests.stress.conftest import BODY, SMALL
from tests.stress.floods import FLOODS, MB, observed

#: Part of a flood's full length in `make test`.
SHORT = 0.05
#: Bytes of memory that a flood may cost.
MEMORY = 20 * MB


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has generated images, so that its engine has its memory."""
    with servers() as serve:
        server = serve(tmp_path_factory.mktemp("flooded") / "data", **SMALL)
        for _ in range(20):
            assert server.post(server.key, **BODY).status_code == 200
        yield server


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_flood_is_bounded(
    flooded: Server, flood: Callable[[Server, int], None], full: bool, figures: Callable[[str], None]
) -> None:
    size = FLOODS[flood] if full else int(FLOODS[flood] * SHORT)
    with observed(flooded) as costs:
        flood(flooded, size)
    figures(f"{flood.__name__}, {size // MB} MB: {costs}")
    assert costs.peak < MEMORY
    assert flooded.post(flooded.key, **BODY).status_code == 200
