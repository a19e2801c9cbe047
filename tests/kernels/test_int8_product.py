"""The int8 product for CPUs without the AVX-512 kernels."""

import pytest
import torch

from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from allaprima.kernels.quantized import _int8_product


@pytest.mark.parametrize("level", [IsaLevel.TORCH, IsaLevel.AVX2])
@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 1, 1), (7, 131, 33), (13, 5000, 50), (6, 4096, 16)], ids=str)
def test_int8_product_is_exact(shape: tuple[int, int, int], level: IsaLevel) -> None:
    if library.level() < level:
        pytest.skip("no compiled kernels, or a CPU without AVX2")
    tokens, columns, rows = shape
    x = torch.randint(-127, 128, (tokens, columns), dtype=torch.int8)
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    with library.limited(level):
        actual = _int8_product(x, weight)
    assert torch.equal(actual.double(), x.double() @ weight.double().t())
