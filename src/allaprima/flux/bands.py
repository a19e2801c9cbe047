"""The autoencoder's decoder in bounded memory: the same layers, a band of rows at a time.

A large picture's activations are hundreds of values a pixel. Here a level keeps its input and one hidden state whole,
in the dtype of the weights; all else lives for one band. The middle is run whole, since its attention sees every
position and its resolution is the lowest. Group norms take their statistics of the whole picture, in two passes, and
convolutions read one row more on either side of a band (its halo), so that no seam can show.

Dimension key: B batch, C channels, Y rows, X columns.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from allaprima.flux.check import Check

#: Most values of a band, C times rows times X: 32 MiB in bfloat16.
BAND = 2**24

#: Gives rows of a convolution's input, from the first to before the last.
Rows = Callable[[int, int], Tensor]


class Resnet(Protocol):
    """The layers of a `ResnetBlock`."""

    norm1: nn.GroupNorm
    conv1: nn.Conv2d
    norm2: nn.GroupNorm
    conv2: nn.Conv2d
    nin_shortcut: nn.Conv2d | None


def banded_resnet(block: Resnet, x: Tensor, check: Check) -> Tensor:
    """Do as a `ResnetBlock` does: (B, C, Y, X) -> (B, out_channels, Y, X). What it returns lies in the memory of x."""
    _batch, _channels, height, width = x.shape
    hidden = x.new_empty((x.shape[0], block.conv1.out_channels, height, width))
    activated = _activated(block.norm1, x, check)
    for start, stop in _bands(x, check):
        hidden[:, :, start:stop] = _conv(block.conv1, activated, start, stop, height)
    activated = _activated(block.norm2, hidden, check)
    out = x[:, : hidden.shape[1]] if hidden.shape[1] <= x.shape[1] else torch.empty_like(hidden)
    for start, stop in _bands(x, check):
        given = x[:, :, start:stop]
        beside = given if block.nin_shortcut is None else block.nin_shortcut(given)
        out[:, :, start:stop] = beside + _conv(block.conv2, activated, start, stop, height)
    return out


def banded_upsample(conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Double and convolve: (B, C, Y, X) -> (B, C, 2 Y, 2 X)."""
    batch, channels, height, width = x.shape
    out = x.new_empty((batch, channels, 2 * height, 2 * width))

    def doubled(start: int, stop: int) -> Tensor:
        first = start // 2
        larger = nn.functional.interpolate(x[:, :, first : (stop + 1) // 2], scale_factor=2.0, mode="nearest")
        return larger[:, :, start - 2 * first : stop - 2 * first]

    for start, stop in _bands(out, check):
        out[:, :, start:stop] = _conv(conv, doubled, start, stop, 2 * height)
    return out


def banded_head(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, check: Check) -> Tensor:
    """Normalise, SiLU, convolve: (B, C, Y, X) -> (B, conv.out_channels, Y, X)."""
    activated = _activated(norm, x, check)
    height = x.shape[2]
    return torch.cat([_conv(conv, activated, start, stop, height) for start, stop in _bands(x, check)], dim=2)


def _bands(x: Tensor, check: Check) -> Iterator[tuple[int, int]]:
    """Yield the first row of each band and the row after its last, and ask `check` before each."""
    height = x.shape[2]
    rows = max(1, BAND // (x[:, :, 0].numel()))
    for start in range(0, height, rows):
        check()
        yield start, min(height, start + rows)


def _conv(conv: nn.Conv2d, read: Rows, start: int, stop: int, height: int) -> Tensor:
    """Return rows of a 3x3 convolution padded with zeros. read: gives rows of its input, which has `height`."""
    above, below = min(1, start), min(1, height - stop)
    rows = nn.functional.pad(read(start - above, stop + below), (0, 0, 1 - above, 1 - below))
    return nn.functional.conv2d(rows, conv.weight, conv.bias, padding=(0, 1))


def _activated(norm: nn.GroupNorm, x: Tensor, check: Check) -> Rows:
    """Return what gives rows of silu(norm(x)), with the statistics of all of x."""
    batch, channels = x.shape[:2]
    mean, variance = (
        each.repeat_interleave(channels // norm.num_groups).reshape(batch, channels)
        for each in _statistics(norm, x, check)
    )
    scale = norm.weight.float() / (variance + norm.eps).sqrt()
    shift = norm.bias.float() - mean * scale

    def rows(start: int, stop: int) -> Tensor:
        # In float32 from end to end: what is rounded twice depends on where a band begins.
        normed = torch.addcmul(shift[..., None, None], x[:, :, start:stop].float(), scale[..., None, None])
        return nn.functional.silu(normed, inplace=True).to(x.dtype)

    return rows


def _statistics(norm: nn.GroupNorm, x: Tensor, check: Check) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every group, sample by sample; each (B * groups,), float32.

    Summed in float64, so that what the bands' height changes is far below what float32 shows.
    """
    groups = x.shape[0] * norm.num_groups

    def mean(of: Callable[[Tensor], Tensor]) -> Tensor:
        total = torch.zeros(groups, dtype=torch.float64, device=x.device)
        for start, stop in _bands(x, check):
            values = of(x[:, :, start:stop].float().reshape(groups, -1))
            total += values.sum(dim=1, dtype=torch.float64)
        return (total / (x.numel() / groups)).float()

    center = mean(lambda values: values)
    return center, mean(lambda values: (values - center[:, None]).square_())
