"""The int8 product for CPUs with AVX2 and no more."""

import pytest
import torch

from allaprima.kernels import library
from allaprima.kernels.library import Level
from allaprima.kernels.quantized import _int8_product

pytestmark = pytest.mark.skipif(library.level() < Level.AVX2, reason="no compiled kernels, or a CPU without AVX2")


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 1, 1), (7, 131, 33), (13, 5000, 50), (6, 4096, 16)], ids=str)
def test_it_is_exact(shape: tuple[int, int, int]) -> None:
    tokens, columns, rows = shape
    x = torch.randint(-127, 128, (tokens, columns), dtype=torch.int8)
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    with library.limited(Level.AVX2):
        found = _int8_product(x, weight)
    assert torch.equal(found.double(), x.double() @ weight.double().t())
