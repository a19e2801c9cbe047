"""The autoencoder's convolutions, over a range of rows, fused with the norm before them and the residual after them.

The compiled kernel supports only images in `torch.channels_last` memory format, and writes its result in that format.

Dimension key: B batch, C channels, Y rows, X columns.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allaprima.kernels import library
from allaprima.kernels.linear import linear


@dataclass(frozen=True, slots=True)
class Affine:
    """A group norm as an affine map x * scale + shift per sample and channel. scale, shift: (B, C), float32."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, slots=True)
class Convolution:
    """A 3x3 convolution with zero padding, and the operations that are fused with it.

    The order is: `affine` and SiLU, upsampling, convolution, residual.
    """

    conv: nn.Conv2d
    #: A group norm, applied to the input together with SiLU; None applies neither.
    affine: Affine | None = None
    #: Whether the input is upsampled by 2 (nearest neighbour).
    upsample: bool = False
    #: A tensor of the output's shape that is added to the output.
    residual: Tensor | None = None

    def rows(self, x: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Compute the output of the input rows [start, stop) and write it to the corresponding rows of `out`.

        x: (B, C, Y, X), all rows of the input. out: (B, out_channels, Y, X), or (B, out_channels, 2 Y, 2 X) with
        `upsample`; it may be the residual.
        """
        weight, bias = self.conv.weight, self.conv.bias
        if _is_native(x, out, self.residual, weight, bias) and weight.is_contiguous():
            self._native(x, start, stop, out)
        else:
            self._with_torch(x, start, stop, out)

    def _with_torch(self, x: Tensor, start: int, stop: int, out: Tensor) -> None:
        factor = 2 if self.upsample else 1
        height = factor * x.shape[2]
        first, end = max(0, start - 1), min(x.shape[2], stop + 1)
        values = x[:, :, first:end]
        if self.affine is not None:
            # Norm and SiLU are computed in float32 and rounded once, so that the result does not depend on the first
            # row of the range.
            shift, scale = (each[..., None, None] for each in (self.affine.shift, self.affine.scale))
            values = nn.functional.silu(torch.addcmul(shift, values.float(), scale), inplace=True).to(x.dtype)
        if self.upsample:
            values = nn.functional.interpolate(values, scale_factor=2.0, mode="nearest")
        start, stop, first = factor * start, factor * stop, factor * first
        above, below = min(1, start), min(1, height - stop)
        values = values[:, :, start - above - first : stop + below - first]
        values = nn.functional.pad(values, (0, 0, 1 - above, 1 - below))
        result = nn.functional.conv2d(values, self.conv.weight, self.conv.bias, padding=(0, 1))
        out[:, :, start:stop] = result if self.residual is None else self.residual[:, :, start:stop] + result

    def _native(self, x: Tensor, start: int, stop: int, out: Tensor) -> None:
        for b in range(x.shape[0]):
            arguments = NativeConvolution(
                x=x[b].data_ptr(),
                rows=x.shape[2],
                columns=x.shape[3],
                channels=x.shape[1],
                scale=None if self.affine is None else self.affine.scale[b].data_ptr(),
                shift=None if self.affine is None else self.affine.shift[b].data_ptr(),
                weight=self.conv.weight.data_ptr(),
                bias=None if self.conv.bias is None else self.conv.bias.data_ptr(),
                out_channels=self.conv.out_channels,
                upsample=self.upsample,
                begin=start,
                end=stop,
                residual=None if self.residual is None else self.residual[b].data_ptr(),
                out=out[b].data_ptr(),
            )
            library.call("convolve", arguments)


class NativeConvolution(ctypes.Structure):
    """`ConvolutionArgs` of `native/kernels.h`."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out_channels", ctypes.c_int64),
        ("upsample", ctypes.c_int64),
        ("begin", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("residual", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    )


def group_affine(norm: nn.GroupNorm, x: Tensor, rows_at_a_time: int) -> Affine:
    """Return a group norm of x as an affine map per channel, from the statistics of the whole image.

    x: (B, C, Y, X). rows_at_a_time: number of rows that torch's version sums at a time, which bounds its memory. Sums
    are float64 (the kernel sums 256 pixels in float32 first), so `rows_at_a_time` changes the result by much less than
    float32's precision. The number of threads does not change it. Source: Wu and He 2018 (1803.08494), eq. 2.
    """
    if _is_native(x, x, None, norm.weight, norm.bias):
        scale, shift = torch.empty((2, *x.shape[:2]), dtype=torch.float32)
        for b in range(x.shape[0]):
            sizes = (x.shape[2] * x.shape[3], x.shape[1], norm.num_groups)
            library.call("group_affine", x[b], *sizes, norm.weight, norm.bias, norm.eps, scale[b], shift[b])
        return Affine(scale, shift)
    groups, count = x.shape[0] * norm.num_groups, x[0].numel() / norm.num_groups
    sums = torch.zeros((2, groups), dtype=torch.float64, device=x.device)
    for rows in x.split(rows_at_a_time, dim=2):
        values = rows.double().reshape(groups, -1)
        sums[0] += values.sum(dim=1)
        sums[1] += values.square().sum(dim=1)
    mean, square = sums / count
    # Rounding can make the variance slightly negative. `clamp` does not replace NaN.
    factor = ((square - mean.square()).clamp(min=0) + norm.eps).rsqrt()
    mean, factor = (
        each.float().repeat_interleave(x.shape[1] // norm.num_groups).reshape(x.shape[:2]) for each in (mean, factor)
    )
    scale = norm.weight.float() * factor
    return Affine(scale, norm.bias.float() - mean * scale)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1x1 convolution: (B, C, Y, X) -> (B, out_channels, Y, X)."""
    weight = conv.weight.flatten(1).contiguous()
    if not _is_native(x, x, None, weight, conv.bias):
        return conv(x)
    return linear(x.permute(0, 2, 3, 1).flatten(1, 2), weight, conv.bias).mT.unflatten(2, x.shape[2:])


def prefers_channels_last(x: Tensor) -> bool:
    """Return whether the kernels support images of this shape and dtype in `torch.channels_last` memory format."""
    return x.shape[1] % 2 == 0 and library.supports_dtype(x)


def _is_native(x: Tensor, out: Tensor, residual: Tensor | None, *others: Tensor | None) -> bool:
    return (
        prefers_channels_last(x)
        and library.supports_dtype(out, residual, *others)
        and all(image is None or image.is_contiguous(memory_format=torch.channels_last) for image in (x, out, residual))
    )
