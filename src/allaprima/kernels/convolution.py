"""The autoencoder's convolutions, a band of rows at a time, with the norm before them and the residual behind.

The compiled kernel wants pictures whose channels lie side by side (`torch.channels_last`), and gives such ones.

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
    """What a group norm does to each channel of each sample: times scale, plus shift; each (B, C), float32."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, slots=True)
class Convolution:
    """A 3x3 convolution, padded with zeros, and what stands around it."""

    conv: nn.Conv2d
    #: SiLU of this is what is convolved.
    affine: Affine | None = None
    #: Whether every pixel is doubled both ways before.
    doubles: bool = False
    #: Added: as the result.
    residual: Tensor | None = None

    def rows(self, x: Tensor, start: int, stop: int, out: Tensor) -> None:
        """Convolve rows of x, from `start` to before `stop`, into their place in `out`.

        x: (B, C, Y, X); out: (B, out_channels, Y, X), or twice the rows and columns. out may be the residual.
        """
        weight, bias = self.conv.weight, self.conv.bias
        if _is_native(x, out, self.residual, weight, bias) and weight.is_contiguous():
            self._native(x, start, stop, out)
            return
        factor = 2 if self.doubles else 1
        height = factor * x.shape[2]
        first, end = max(0, start - 1), min(x.shape[2], stop + 1)
        values = x[:, :, first:end]
        if self.affine is not None:
            # In float32 from end to end: what is rounded twice depends on where a band begins.
            shift, scale = (each[..., None, None] for each in (self.affine.shift, self.affine.scale))
            values = nn.functional.silu(torch.addcmul(shift, values.float(), scale), inplace=True).to(x.dtype)
        if self.doubles:
            values = nn.functional.interpolate(values, scale_factor=2.0, mode="nearest")
        start, stop, first = factor * start, factor * stop, factor * first
        above, below = min(1, start), min(1, height - stop)
        values = values[:, :, start - above - first : stop + below - first]
        values = nn.functional.pad(values, (0, 0, 1 - above, 1 - below))
        made = nn.functional.conv2d(values, self.conv.weight, self.conv.bias, padding=(0, 1))
        out[:, :, start:stop] = made if self.residual is None else self.residual[:, :, start:stop] + made

    def _native(self, x: Tensor, start: int, stop: int, out: Tensor) -> None:
        for b in range(x.shape[0]):
            affine = (None, None) if self.affine is None else (self.affine.scale[b], self.affine.shift[b])
            library.call(
                "convolve",
                NativeConvolution(
                    *(x[b].data_ptr(), x.shape[2], x.shape[3], x.shape[1]),
                    *(_pointer(part) for part in (*affine, self.conv.weight, self.conv.bias)),
                    *(self.conv.out_channels, self.doubles, start, stop),
                    *(None if self.residual is None else self.residual[b].data_ptr(), out[b].data_ptr()),
                ),
            )


class NativeConvolution(ctypes.Structure):
    """`Convolve` of `native/kernels.h`."""

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
        ("doubles", ctypes.c_int64),
        ("begin", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("residual", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    )


def group_affine(norm: nn.GroupNorm, x: Tensor, band: int) -> Affine:
    """Return what a group norm of x does, from statistics of all of x. x: (B, C, Y, X); band: rows at a time.

    Summed in float64, by the kernel 256 pixels at a time in float32 before: what a band's height changes is far below
    what float32 shows, and the threads change nothing.
    Source: Wu and He 2018 (1803.08494), eq. 2.
    """
    if _is_native(x, x, None, norm.weight, norm.bias):
        scale, shift = torch.empty((2, *x.shape[:2]), dtype=torch.float32)
        for b in range(x.shape[0]):
            sizes = (x.shape[2] * x.shape[3], x.shape[1], norm.num_groups)
            library.call("group_affine", x[b], *sizes, norm.weight, norm.bias, norm.eps, scale[b], shift[b])
        return Affine(scale, shift)
    groups, count = x.shape[0] * norm.num_groups, x[0].numel() / norm.num_groups
    sums = torch.zeros((2, groups), dtype=torch.float64, device=x.device)
    for rows in x.split(band, dim=2):
        values = rows.double().reshape(groups, -1)
        sums[0] += values.sum(dim=1)
        sums[1] += values.square().sum(dim=1)
    mean, square = sums / count
    # Rounding may leave a little less than nothing of a variance; a NaN stays one.
    factor = ((square - mean.square()).clamp(min=0) + norm.eps).rsqrt()
    mean, factor = (
        each.float().repeat_interleave(x.shape[1] // norm.num_groups).reshape(x.shape[:2]) for each in (mean, factor)
    )
    scale = norm.weight.float() * factor
    return Affine(scale, norm.bias.float() - mean * scale)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Do as a 1x1 convolution does: (B, C, Y, X) -> (B, out_channels, Y, X)."""
    weight = conv.weight.flatten(1).contiguous()
    if not _is_native(x, x, None, weight, conv.bias):
        return conv(x)
    return linear(x.permute(0, 2, 3, 1).flatten(1, 2), weight, conv.bias).mT.unflatten(2, x.shape[2:])


def prefers_channels_last(x: Tensor) -> bool:
    """Say whether a picture should have its channels side by side for the kernels here."""
    return x.shape[1] % 2 == 0 and library.knows(x)


def _is_native(x: Tensor, out: Tensor, residual: Tensor | None, *others: Tensor | None) -> bool:
    return (
        prefers_channels_last(x)
        and library.knows(out, residual, *others)
        and all(
            picture is None or picture.is_contiguous(memory_format=torch.channels_last)
            for picture in (x, out, residual)
        )
    )


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
