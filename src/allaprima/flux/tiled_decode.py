"""Tiled decode: runs the autoencoder's decoder in bounded memory, one tile (a range of full rows) at a time.

A full decode of a large image needs hundreds of activations per pixel. Here a resolution stores only its input and one
hidden state of the whole image, in the dtype of the weights; all other activations exist for one tile at a time. The
result has no seams: group norms use the statistics of the whole image, and convolutions read one row beyond each side
of a tile (its halo). Each function takes a batch of one image and may overwrite it.

Dimension key: C channels, Y rows, X columns.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from allaprima.flux.cancel import CancelCheck
from allaprima.kernels import Convolution, attention, group_affine, pointwise, prefers_channels_last, workspace

#: Most values of a tile, C * rows * X: 32 MiB in bfloat16.
MAX_TILE_VALUES = 2**24


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


def tiled_convolution(conv: nn.Conv2d, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Apply a 3x3 convolution: (1, C, Y, X) -> (1, conv.out_channels, Y, X)."""
    if prefers_channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last)
    return _convolve(Convolution(conv), x, _empty(x, conv.out_channels), check_cancelled)


def tiled_resnet(block: Resnet, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Apply a `ResnetBlock`: (1, C, Y, X) -> (1, out_channels, Y, X)."""
    affine = group_affine(block.norm1, x, _tile_rows(x))
    hidden = _convolve(Convolution(block.conv1, affine), x, _empty(x, block.conv1.out_channels), check_cancelled)
    residual = x if block.nin_shortcut is None else _shortcut(block.nin_shortcut, x, check_cancelled)
    affine = group_affine(block.norm2, hidden, _tile_rows(hidden))
    return _convolve(Convolution(block.conv2, affine, residual=residual), hidden, residual, check_cancelled)


def tiled_attention(block: Attention, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Apply an `AttnBlock` to the whole image, since attention is global: (1, C, Y, X) -> the same shape."""
    check_cancelled()
    affine = group_affine(block.norm, x, _tile_rows(x))
    normed = torch.addcmul(affine.shift[..., None, None], x.float(), affine.scale[..., None, None]).to(x.dtype)
    q, k, v = (pointwise(conv, normed).flatten(2).mT[:, None] for conv in (block.q, block.k, block.v))
    out = attention(q, k, v)[:, 0].mT.unflatten(2, x.shape[2:])  # (1, C, Y, X)
    return x.add_(pointwise(block.proj_out, out))


def tiled_upsample(conv: nn.Conv2d, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Upsample by 2 (nearest neighbour) and apply a 3x3 convolution: (1, C, Y, X) -> (1, C, 2 Y, 2 X)."""
    out = _empty(x, conv.out_channels, 2)
    return _convolve(Convolution(conv, upsample=True), x, out, check_cancelled)


def tiled_head(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Apply the decoder's last group norm, SiLU and convolution: (1, C, Y, X) -> (1, conv.out_channels, Y, X)."""
    return _convolve(
        Convolution(conv, group_affine(norm, x, _tile_rows(x))), x, _empty(x, conv.out_channels), check_cancelled
    )


def _tile_rows(x: Tensor) -> int:
    """Return the number of rows of x in a tile."""
    return max(1, MAX_TILE_VALUES // x[0, :, 0].numel())


def _tiles(x: Tensor, rows: int, check_cancelled: CancelCheck) -> Iterator[tuple[int, int]]:
    """Yield each tile as (first row, row after the last). `check_cancelled` is called before each tile."""
    for start in range(0, x.shape[2], rows):
        check_cancelled()
        yield start, min(x.shape[2], start + rows)


def _empty(x: Tensor, channels: int, factor: int = 1) -> Tensor:
    """Return an uninitialised tensor (1, channels, factor * Y, factor * X) with the dtype and memory format of x."""
    height, width = (factor * size for size in x.shape[2:])
    if prefers_channels_last(x):
        return workspace.empty((1, height, width, channels), x).permute(0, 3, 1, 2)
    return workspace.empty((1, channels, height, width), x)


def _convolve(convolution: Convolution, x: Tensor, out: Tensor, check_cancelled: CancelCheck) -> Tensor:
    # With upsampling, the size of the output tile is the limit: each input row gives two output rows.
    rows = max(1, _tile_rows(out) // 2) if convolution.upsample else _tile_rows(x)
    for start, stop in _tiles(x, rows, check_cancelled):
        convolution.rows(x, start, stop, out)
    return out


def _shortcut(conv: nn.Conv2d, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
    """Apply a 1x1 convolution; write the result into x if it has no more channels than x."""
    channels = conv.out_channels
    if channels > x.shape[1]:
        out = _empty(x, channels)
    elif x.is_contiguous():
        out = x[:, :channels]
    else:
        # In channels-last memory with fewer channels, a pixel's result is at or before the pixel's own position, so it
        # overwrites only pixels that have been read.
        _, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).flatten()[: height * width * channels]
        out = pixels.view(1, height, width, channels).permute(0, 3, 1, 2)
    for start, stop in _tiles(x, _tile_rows(x), check_cancelled):
        out[:, :, start:stop] = pointwise(conv, x[:, :, start:stop])
    return out
