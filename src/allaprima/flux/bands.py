"""The autoencoder's decoder in bounded memory: the same layers, a band of rows at a time.

A large picture's activations are hundreds of values a pixel. Here a level keeps its input and one hidden state whole,
in the dtype of the weights; all else lives for one band. Group norms take their statistics of the whole picture, and
convolutions read one row more on either side of a band (its halo), so that no seam can show. Every function takes one
picture, and may use up the memory of what it is given.

Dimension key: C channels, Y rows, X columns.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from allaprima.flux.check import Check
from allaprima.kernels import Convolution, attention, group_affine, pointwise, prefers_channels_last, workspace

#: Most values of a band, C times rows times X: 32 MiB in bfloat16.
BAND = 2**24


class Resnet(Protocol):
    """The layers of a `ResnetBlock`."""

    norm1: nn.GroupNorm
    conv1: nn.Conv2d
    norm2: nn.GroupNorm
    conv2: nn.Conv2d
    nin_shortcut: nn.Conv2d | None


class Attention(Protocol):
    """The layers of an `AttnBlock`."""

    norm: nn.GroupNorm
    q: nn.Conv2d
    k: nn.Conv2d
    v: nn.Conv2d
    proj_out: nn.Conv2d


def banded_convolution(conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Convolve: (1, C, Y, X) -> (1, conv.out_channels, Y, X)."""
    if prefers_channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last)
    return _convolve(Convolution(conv), x, _empty(x, conv.out_channels), check)


def banded_resnet(block: Resnet, x: Tensor, check: Check) -> Tensor:
    """Do as a `ResnetBlock` does: (1, C, Y, X) -> (1, out_channels, Y, X)."""
    affine = group_affine(block.norm1, x, _height(x))
    hidden = _convolve(Convolution(block.conv1, affine), x, _empty(x, block.conv1.out_channels), check)
    beside = x if block.nin_shortcut is None else _shorten(block.nin_shortcut, x, check)
    affine = group_affine(block.norm2, hidden, _height(hidden))
    return _convolve(Convolution(block.conv2, affine, residual=beside), hidden, beside, check)


def banded_attention(block: Attention, x: Tensor, check: Check) -> Tensor:
    """Do as an `AttnBlock` does, whole, for every position sees every other: (1, C, Y, X) -> the same shape."""
    check()
    affine = group_affine(block.norm, x, _height(x))
    normed = torch.addcmul(affine.shift[..., None, None], x.float(), affine.scale[..., None, None]).to(x.dtype)
    q, k, v = (pointwise(conv, normed).flatten(2).mT[:, None] for conv in (block.q, block.k, block.v))
    out = attention(q, k, v)[:, 0].mT.unflatten(2, x.shape[2:])  # (1, C, Y, X)
    return x.add_(pointwise(block.proj_out, out))


def banded_upsample(conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Double and convolve: (1, C, Y, X) -> (1, C, 2 Y, 2 X)."""
    out = _empty(x, conv.out_channels, 2)
    return _convolve(Convolution(conv, doubles=True), x, out, check)


def banded_head(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Normalise, SiLU, convolve: (1, C, Y, X) -> (1, conv.out_channels, Y, X)."""
    return _convolve(Convolution(conv, group_affine(norm, x, _height(x))), x, _empty(x, conv.out_channels), check)


def _height(x: Tensor) -> int:
    """Return how many rows make a band."""
    return max(1, BAND // x[0, :, 0].numel())


def _bands(x: Tensor, height: int, check: Check) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band and the row after its last, and ask `check` before each."""
    for start in range(0, x.shape[2], height):
        check()
        yield start, min(x.shape[2], start + height)


def _empty(x: Tensor, channels: int, factor: int = 1) -> Tensor:
    """Return room for a picture of other channels, in the memory order of x."""
    height, width = (factor * size for size in x.shape[2:])
    if prefers_channels_last(x):
        return workspace.empty((1, height, width, channels), x).permute(0, 3, 1, 2)
    return workspace.empty((1, channels, height, width), x)


def _convolve(convolution: Convolution, x: Tensor, out: Tensor, check: Check) -> Tensor:
    # A doubled picture's bands are counted in its own rows.
    height = max(1, _height(out) // 2) if convolution.doubles else _height(x)
    for start, stop in _bands(x, height, check):
        convolution.rows(x, start, stop, out)
    return out


def _shorten(conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Apply a 1x1 convolution, in the memory of x where its result has no more channels than x."""
    channels = conv.out_channels
    if channels > x.shape[1]:
        out = _empty(x, channels)
    elif x.is_contiguous():
        out = x[:, :channels]
    else:
        # Channels lie side by side: a pixel's result is never behind the pixel, so that nothing is lost unread.
        _, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).flatten()[: height * width * channels]
        out = pixels.view(1, height, width, channels).permute(0, 3, 1, 2)
    for start, stop in _bands(x, _height(x), check):
        out[:, :, start:stop] = pointwise(conv, x[:, :, start:stop])
    return out
