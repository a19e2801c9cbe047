"""Which library the kernels' tests call: the package's own, or one that was built with sanitizers."""

import ctypes
import os
from collections.abc import Iterator

import pytest
import torch

from allaprima.kernels import library
from allaprima.kernels.library import Level

if sanitized := os.environ.get("SANITIZED_KERNELS"):
    library._use(ctypes.CDLL(sanitized))

#: Those that every kernel runs on, of this CPU.
LEVELS = [level for level in (Level.AVX512, Level.AMX) if level <= library.level()]


@pytest.fixture(autouse=True)
def _numbers_are_drawn_anew() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=LEVELS or [library.level()], ids=lambda level: level.name)
def _every_level(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test at each level that this CPU has and every kernel runs on."""
    with library.limited(request.param):
        yield
