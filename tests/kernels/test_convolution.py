"""Convolutions by bands against float64, by torch's operations and compiled."""

import pytest
import torch
from native import AT_EVERY_LEVEL, NEEDS_AVX512, ROUNDING, draw, error, same_bits_with_any_threads
from torch import Tensor, nn
from torch.nn import functional

from allaprima.kernels import Affine, Convolution, group_affine, pointwise

#: Channels in and out, rows, columns: few channels are multiplied directly, from 32 on by Winograd's form.
SIZES = pytest.mark.parametrize(
    "size",
    [(16, 3, 1, 1), (16, 70, 5, 7), (32, 64, 6, 4), (48, 33, 13, 29), (70, 20, 7, 1), (512, 64, 3, 100)],
    ids=str,
)
DOUBLES = pytest.mark.parametrize("doubles", [False, True])
#: The forms of Winograd's are rounded to bfloat16 too.
LIMIT = 2 * ROUNDING


def layers(channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out_channels, size, padding=size // 2)
    return conv.bfloat16().requires_grad_(requires_grad=False)


def picture(channels: int, rows: int, columns: int) -> Tensor:
    return draw(1, channels, rows, columns).contiguous(memory_format=torch.channels_last)


def exact(convolution: Convolution, x: Tensor) -> Tensor:
    values, affine, conv = x.double(), convolution.affine, convolution.conv
    if affine is not None:
        values = functional.silu(values * affine.scale[..., None, None] + affine.shift[..., None, None])
    if convolution.doubles:
        values = functional.interpolate(values, scale_factor=2.0)
    made = functional.conv2d(values, conv.weight.double(), conv.bias.double(), padding=1)
    return made if convolution.residual is None else convolution.residual.double() + made


def by_bands(convolution: Convolution, x: Tensor, height: int = 2**20) -> Tensor:
    factor = 2 if convolution.doubles else 1
    out = picture(convolution.conv.out_channels, factor * x.shape[2], factor * x.shape[3])
    for start in range(0, x.shape[2], height):
        convolution.rows(x, start, min(x.shape[2], start + height), out)
    return out


@NEEDS_AVX512
@AT_EVERY_LEVEL
@SIZES
@DOUBLES
@pytest.mark.parametrize("around", [False, True], ids=["alone", "with a norm and a residual"])
def test_it_is_the_plain_convolution_but_for_rounding(
    size: tuple[int, int, int, int], doubles: bool, around: bool
) -> None:
    channels, out_channels, rows, columns = size
    factor = 2 if doubles else 1
    affine = Affine(torch.rand(1, channels) + 0.5, torch.randn(1, channels)) if around else None
    residual = picture(out_channels, factor * rows, factor * columns) if around else None
    convolution = Convolution(layers(channels, out_channels), affine, doubles, residual)
    x = picture(channels, rows, columns)
    assert error(by_bands(convolution, x), exact(convolution, x)) < LIMIT


@NEEDS_AVX512
@AT_EVERY_LEVEL
@SIZES
@DOUBLES
def test_bits_depend_neither_on_threads_nor_on_the_height_of_bands(
    size: tuple[int, int, int, int], doubles: bool
) -> None:
    channels, out_channels, rows, columns = size
    convolution = Convolution(layers(channels, out_channels), doubles=doubles)
    x = picture(channels, rows, columns)
    whole = by_bands(convolution, x)
    assert same_bits_with_any_threads(lambda: by_bands(convolution, x))
    assert all(torch.equal(by_bands(convolution, x, height), whole) for height in (1, 2, 3, 5))


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize("channels", [16, 64])
def test_a_result_may_lie_in_its_residual(channels: int) -> None:
    x, residual = picture(channels, 9, 11), picture(24, 9, 11)
    convolution = Convolution(layers(channels, 24), residual=residual)
    apart = by_bands(convolution, x)
    convolution.rows(x, 0, 9, residual)
    assert torch.equal(residual, apart)


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_reaches_its_neighbours_and_nothing_far(channels: int, value: float) -> None:
    x = picture(channels, 12, 12)
    x[0, 5, 6, 6] = value
    finite = torch.isfinite(by_bands(Convolution(layers(channels, 8)), x)).all(dim=1)[0]
    assert not finite[6, 6]
    # A pixel's block of four by four, and what it is computed from.
    finite[4:9, 4:9] = True
    assert finite.all()


@NEEDS_AVX512
@AT_EVERY_LEVEL
def test_a_weight_in_another_order_is_understood() -> None:
    convolution, x = Convolution(layers(64, 24)), picture(64, 5, 6)
    before = by_bands(convolution, x)
    convolution.conv.to(memory_format=torch.channels_last)
    assert error(by_bands(convolution, x), before) < LIMIT


def test_a_group_norms_input_is_left_as_it_is() -> None:
    norm, x = nn.GroupNorm(2, 8).double().requires_grad_(requires_grad=False), torch.randn(1, 8, 4, 4).double()
    before = x.clone()
    group_affine(norm, x, 4)
    assert torch.equal(x, before)


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize(("channels", "groups", "rows", "columns"), [(32, 8, 1, 1), (48, 6, 13, 29), (512, 32, 40, 33)])
def test_a_group_norm_is_a_scale_and_a_shift(channels: int, groups: int, rows: int, columns: int) -> None:
    norm = nn.GroupNorm(groups, channels, eps=1e-6).bfloat16()
    norm.weight.data, norm.bias.data = draw(channels), draw(channels)
    x = picture(channels, rows, columns) + 3
    affine = group_affine(norm.requires_grad_(requires_grad=False), x, 4)
    found = x.double() * affine.scale[..., None, None] + affine.shift[..., None, None]
    assert (
        error(found, functional.group_norm(x.double(), groups, norm.weight.double(), norm.bias.double(), 1e-6)) < 1e-5
    )
    assert same_bits_with_any_threads(lambda: group_affine(norm, x, 4).scale)
    plain = group_affine(norm, x.contiguous(), 4)
    assert torch.allclose(affine.scale, plain.scale, rtol=1e-5)


@NEEDS_AVX512
@AT_EVERY_LEVEL
def test_a_1x1_convolution_is_a_linear_of_every_pixel() -> None:
    conv, x = layers(34, 21, 1), picture(34, 5, 7)
    found = pointwise(conv, x)
    assert found.shape == (1, 21, 5, 7)
    assert error(found, conv(x.double().bfloat16())) < 2 * ROUNDING
    assert torch.equal(pointwise(conv, x[:, :, 2:4]), found[:, :, 2:4])


@DOUBLES
@pytest.mark.parametrize("height", [1, 2, 3, 100])
def test_torchs_own_operations_give_the_same_by_bands_of_any_height(doubles: bool, height: int) -> None:
    affine = Affine(torch.rand(1, 6) + 0.5, torch.randn(1, 6))
    convolution = Convolution(nn.Conv2d(6, 4, 3, padding=1).requires_grad_(requires_grad=False), affine, doubles)
    x = torch.randn(1, 6, 7, 5)
    out = torch.empty(1, 4, *(2 * side if doubles else side for side in x.shape[2:]))
    for start in range(0, 7, height):
        convolution.rows(x, start, min(7, start + height), out)
    assert torch.allclose(out, exact(convolution, x).float(), atol=1e-5)
