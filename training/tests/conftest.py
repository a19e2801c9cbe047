"""Fixtures of the trainer's tests: the art, which remains in `build/art` between runs, and a separate cache folder."""

from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="drawing scenes needs resvg-py: install the `train` extra")

from programs import need
from training.data.art import TARBALL, Art

ART_FOLDER = Path(__file__).parents[2] / "build" / "art"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Tests neither read nor write the user's cache of packed weights; the subprocesses they start inherit this.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def art():
    if not (ART_FOLDER / TARBALL).exists():
        need("npm", "fetches the art")
    return Art(ART_FOLDER)
