"""Fixtures of the trainer's tests: the art, cached in `build/art` between runs, and a separate cache folder."""

from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="drawing scenes needs resvg-py: install the `train` extra")

from tests.programs import need
from training.data.art import TARBALL, Art
from training.fit import loop

ART_FOLDER = Path(__file__).parents[2] / "build" / "art"
#: Seconds that a step of a fit counts for in tests; each takes longer.
STEP_S = 0.001


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Keeps tests and their subprocesses out of the user's cache of packed weights.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def art():
    if not (ART_FOLDER / TARBALL).exists():
        need("npm", "fetches the art")
    return Art(ART_FOLDER)


@pytest.fixture
def minutes_of(monkeypatch: pytest.MonkeyPatch):
    """Return a function of the minutes that a fit of some steps takes, whatever the speed of the machine."""
    monkeypatch.setattr(loop, "LONGEST_STEP_S", STEP_S)
    return lambda steps: (steps - 0.5) * STEP_S / 60
