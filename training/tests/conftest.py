"""What the trainer's tests share: the art, kept between runs where git does not look."""

from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="drawing scenes needs resvg-py: install the `train` extra")

from programs import need
from training.art import TARBALL, Art

ART_FOLDER = Path(__file__).parents[2] / "build" / "art"


@pytest.fixture(scope="session")
def art():
    if not (ART_FOLDER / TARBALL).exists():
        need("npm", "fetches the art")
    return Art(ART_FOLDER)
