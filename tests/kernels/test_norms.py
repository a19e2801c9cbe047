"""Norms, compiled and in torch, against float64."""

import pytest
import torch
from torch.nn import functional

from allaprima.kernels import modulate, rms_norm
from tests.kernels.native import NEEDS_AVX512, ROUNDING, draw, error, same_bits_with_any_threads

SIZES = pytest.mark.parametrize(("length", "width"), [(1, 64), (257, 192), (19, 70), (40, 3072), (3, 1)])


@NEEDS_AVX512
@SIZES
def test_modulate_equals_float64(length: int, width: int) -> None:
    x, shift, scale = draw(2, length, width), draw(2, 1, width), draw(2, 1, width)
    x[0, 0] = 3
    expected = functional.layer_norm(x.double(), (width,), eps=1e-6) * (1 + scale.double()) + shift.double()
    assert error(modulate(x, shift, scale), expected) < ROUNDING
    assert same_bits_with_any_threads(lambda: modulate(x, shift, scale))
    wider = torch.cat((x, x), dim=-1)[..., :width]
    assert torch.equal(modulate(wider, shift, scale), modulate(x, shift, scale))


@NEEDS_AVX512
@SIZES
def test_rms_norm_equals_float64(length: int, width: int) -> None:
    x, scale = draw(length, width), draw(width)
    x[0] = 0
    expected = functional.rms_norm(x.double(), (width,), scale.double(), 1e-6)
    assert length == 1 or error(rms_norm(x, scale, 1e-6), expected) < ROUNDING
    assert not rms_norm(x, scale, 1e-6)[0].any()
    assert same_bits_with_any_threads(lambda: rms_norm(x, scale, 1e-6))


@NEEDS_AVX512
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_non_finite_row_affects_only_itself(value: float) -> None:
    x, shift, scale = draw(1, 9, 64), draw(1, 1, 64), draw(1, 1, 64)
    x[0, 4, 7] = value
    for actual in (modulate(x, shift, scale), rms_norm(x, scale.flatten(), 1e-6)):
        finite = torch.isfinite(actual[0]).all(dim=1)
        assert finite.tolist() == [row != 4 for row in range(9)]


def test_other_dtypes_fall_back_to_torch() -> None:
    x, shift, scale = torch.randn(1, 5, 30), torch.randn(1, 1, 30), torch.randn(1, 1, 30)
    expected = functional.layer_norm(x, (30,), eps=1e-6) * (1 + scale) + shift
    assert torch.allclose(modulate(x, shift, scale), expected, atol=1e-6)
    assert torch.allclose(rms_norm(x, scale[0, 0], 1e-6), functional.rms_norm(x, (30,), scale[0, 0], 1e-6), atol=1e-6)
