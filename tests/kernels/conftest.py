"""Selects the library that the tests of the kernels call: that of the package, or one built with sanitizers."""

import ctypes
import os
from collections.abc import Iterator

import pytest
import torch

from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel

if sanitized := os.environ.get("SANITIZED_KERNELS"):
    library.library().use(ctypes.CDLL(sanitized))

#: The levels of this CPU at which all kernels are available.
LEVELS = [level for level in (IsaLevel.AVX512, IsaLevel.AMX) if level <= library.level()]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=LEVELS or [library.level()], ids=lambda level: level.name)
def _every_level(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test at each of `LEVELS`."""
    with library.limited(request.param):
        yield
