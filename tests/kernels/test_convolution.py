"""Convolutions of row ranges, compiled and in torch, against float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from allaprima.kernels import Affine, Convolution, group_affine, pointwise
from tests.kernels.native import AT_EVERY_LEVEL, NEEDS_AVX512, ROUNDING, draw, error, same_bits_with_any_threads

#: Channels in and out, rows, columns: direct convolution below 32 channels, Winograd from there.
SIZES = pytest.mark.parametrize(
    "size",
    [(16, 3, 1, 1), (16, 70, 5, 7), (32, 64, 6, 4), (48, 33, 13, 29), (70, 20, 7, 1), (512, 64, 3, 100)],
    ids=str,
)
UPSAMPLE = pytest.mark.parametrize("upsample", [False, True])
#: Winograd's transformed values are rounded to bfloat16 too.
LIMIT = 2 * ROUNDING


def layers(channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out_channels, size, padding=size // 2)
    return conv.bfloat16().requires_grad_(requires_grad=False)


def image(channels: int, rows: int, columns: int) -> Tensor:
    return draw(1, channels, rows, columns).contiguous(memory_format=torch.channels_last)


def exact(convolution: Convolution, x: Tensor) -> Tensor:
    values, affine, conv = x.double(), convolution.affine, convolution.conv
    if affine is not None:
        values = functional.silu(values * affine.scale[..., None, None] + affine.shift[..., None, None])
    if convolution.upsample:
        values = functional.interpolate(values, scale_factor=2.0)
    result = functional.conv2d(values, conv.weight.double(), conv.bias.double(), padding=1)
    return result if convolution.residual is None else convolution.residual.double() + result


def convolve(convolution: Convolution, x: Tensor, rows_at_a_time: int = 2**20) -> Tensor:
    factor = 2 if convolution.upsample else 1
    out = image(convolution.conv.out_channels, factor * x.shape[2], factor * x.shape[3])
    for start in range(0, x.shape[2], rows_at_a_time):
        convolution.rows(x, start, min(x.shape[2], start + rows_at_a_time), out)
    return out


@NEEDS_AVX512
@AT_EVERY_LEVEL
@SIZES
@UPSAMPLE
@pytest.mark.parametrize("fused", [False, True], ids=["alone", "with norm and residual"])
def test_convolution_equals_float64_within_rounding(
    size: tuple[int, int, int, int], upsample: bool, fused: bool
) -> None:
    channels, out_channels, rows, columns = size
    factor = 2 if upsample else 1
    affine = Affine(torch.rand(1, channels) + 0.5, torch.randn(1, channels)) if fused else None
    residual = image(out_channels, factor * rows, factor * columns) if fused else None
    convolution = Convolution(layers(channels, out_channels), affine, upsample, residual)
    x = image(channels, rows, columns)
    assert error(convolve(convolution, x), exact(convolution, x)) < LIMIT


@NEEDS_AVX512
@AT_EVERY_LEVEL
@SIZES
@UPSAMPLE
def test_convolution_bits_do_not_depend_on_threads_or_rows(size: tuple[int, int, int, int], upsample: bool) -> None:
    channels, out_channels, rows, columns = size
    convolution = Convolution(layers(channels, out_channels), upsample=upsample)
    x = image(channels, rows, columns)
    whole = convolve(convolution, x)
    assert same_bits_with_any_threads(lambda: convolve(convolution, x))
    assert all(torch.equal(convolve(convolution, x, rows_at_a_time), whole) for rows_at_a_time in (1, 2, 3, 5))


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize("channels", [16, 64])
def test_convolution_may_overwrite_residual(channels: int) -> None:
    x, residual = image(channels, 9, 11), image(24, 9, 11)
    convolution = Convolution(layers(channels, 24), residual=residual)
    apart = convolve(convolution, x)
    convolution.rows(x, 0, 9, residual)
    assert torch.equal(residual, apart)


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_non_finite_pixel_affects_only_its_neighbours(channels: int, value: float) -> None:
    x = image(channels, 12, 12)
    x[0, 5, 6, 6] = value
    finite = torch.isfinite(convolve(Convolution(layers(channels, 8)), x)).all(dim=1)[0]
    assert not finite[6, 6]
    # The 4x4 tile of the pixel, and the pixels computed from it.
    finite[4:9, 4:9] = True
    assert finite.all()


@NEEDS_AVX512
@AT_EVERY_LEVEL
def test_channels_last_weight_gives_same_result() -> None:
    convolution, x = Convolution(layers(64, 24)), image(64, 5, 6)
    before = convolve(convolution, x)
    convolution.conv.to(memory_format=torch.channels_last)
    assert error(convolve(convolution, x), before) < LIMIT


def test_group_affine_does_not_modify_its_input() -> None:
    norm, x = nn.GroupNorm(2, 8).double().requires_grad_(requires_grad=False), torch.randn(1, 8, 4, 4).double()
    before = x.clone()
    group_affine(norm, x, 4)
    assert torch.equal(x, before)


@NEEDS_AVX512
@AT_EVERY_LEVEL
@pytest.mark.parametrize(("channels", "groups", "rows", "columns"), [(32, 8, 1, 1), (48, 6, 13, 29), (512, 32, 40, 33)])
def test_group_affine_equals_group_norm(channels: int, groups: int, rows: int, columns: int) -> None:
    norm = nn.GroupNorm(groups, channels, eps=1e-6).bfloat16()
    norm.weight.data, norm.bias.data = draw(channels), draw(channels)
    x = image(channels, rows, columns) + 3
    affine = group_affine(norm.requires_grad_(requires_grad=False), x, 4)
    actual = x.double() * affine.scale[..., None, None] + affine.shift[..., None, None]
    assert (
        error(actual, functional.group_norm(x.double(), groups, norm.weight.double(), norm.bias.double(), 1e-6)) < 1e-5
    )
    assert same_bits_with_any_threads(lambda: group_affine(norm, x, 4).scale)
    plain = group_affine(norm, x.contiguous(), 4)
    assert torch.allclose(affine.scale, plain.scale, rtol=1e-5)


@NEEDS_AVX512
@AT_EVERY_LEVEL
def test_pointwise_equals_1x1_convolution() -> None:
    conv, x = layers(34, 21, 1), image(34, 5, 7)
    actual = pointwise(conv, x)
    assert actual.shape == (1, 21, 5, 7)
    assert error(actual, conv(x.double().bfloat16())) < 2 * ROUNDING
    assert torch.equal(pointwise(conv, x[:, :, 2:4]), actual[:, :, 2:4])


@UPSAMPLE
@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3, 100])
def test_torch_convolution_equals_float64_for_any_row_ranges(upsample: bool, rows_at_a_time: int) -> None:
    affine = Affine(torch.rand(1, 6) + 0.5, torch.randn(1, 6))
    convolution = Convolution(nn.Conv2d(6, 4, 3, padding=1).requires_grad_(requires_grad=False), affine, upsample)
    x = torch.randn(1, 6, 7, 5)
    out = torch.empty(1, 4, *(2 * side if upsample else side for side in x.shape[2:]))
    for start in range(0, 7, rows_at_a_time):
        convolution.rows(x, start, min(7, start + rows_at_a_time), out)
    assert torch.allclose(out, exact(convolution, x).float(), atol=1e-5)
