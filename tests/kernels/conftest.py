"""Which library the kernels' tests call: the package's own, or one that was built with sanitizers."""

import ctypes
import os

import pytest
import torch

from allaprima.kernels import library

if sanitized := os.environ.get("SANITIZED_KERNELS"):
    library._library = ctypes.CDLL(sanitized)


@pytest.fixture(autouse=True)
def _numbers_are_drawn_anew() -> None:
    torch.manual_seed(0)
