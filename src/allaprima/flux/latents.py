"""Latents: noise, packing into tokens, position ids, and the token grid of an image size.

Dimension key: B batch, C latent channels, Y rows and X columns of tokens.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def noise(seed: int, channels: int, rows: int, columns: int) -> Tensor:
    """Return the initial noise of one image, standard normal: (C, 2 rows, 2 columns), float32, on the CPU.

    The noise depends on the seed and the shape alone: a new CPU generator samples it in float32 for every model dtype.
    seed: 0 to 2**63 - 1. rows, columns: in tokens.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn((channels, 2 * rows, 2 * columns), generator=generator, dtype=torch.float32)


def pack(z: Tensor) -> Tensor:
    """Fold each 2x2 patch into a token: (B, C, 2Y, 2X) -> (B, Y X, 4C).

    A token's values are ordered by channel, then row of the patch, then column.
    Source: black-forest-labs/flux `sampling.py`, `prepare`.
    """
    batch, channels, rows, columns = z.shape
    z = z.reshape(batch, channels, rows // 2, 2, columns // 2, 2)
    return z.permute(0, 2, 4, 1, 3, 5).reshape(batch, (rows // 2) * (columns // 2), channels * 4)


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Undo `pack`: (B, Y X, 4C) -> (B, C, 2Y, 2X). rows, columns: in tokens."""
    batch, _, values = tokens.shape
    z = tokens.reshape(batch, rows, columns, values // 4, 2, 2)
    return z.permute(0, 3, 1, 4, 2, 5).reshape(batch, values // 4, 2 * rows, 2 * columns)


def image_ids(rows: int, columns: int) -> Tensor:
    """Return the position (0, row, column) of each image token: (1, rows * columns, 3), float32."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((torch.zeros_like(row), row, column), dim=-1).reshape(1, -1, 3).float()


def text_ids(length: int) -> Tensor:
    """Return the positions of the text tokens, all zero: (1, length, 3), float32."""
    return torch.zeros(1, length, 3)


@lru_cache(maxsize=1024)
def token_grid(width: int, height: int, token_px: int, native_tokens: int | None) -> tuple[int, int]:
    """Return the token grid (rows, columns) for an image of width x height pixels.

    If `native_tokens` is None, a token covers `token_px` x `token_px` pixels. Otherwise the grid has that many tokens,
    within an eighth, and the aspect ratio nearest to the image's; the decoded image is then resized.
    """
    if native_tokens is None:
        return height // token_px, width // token_px
    least, most = native_tokens * 7 // 8, native_tokens * 9 // 8
    grids = [(r, c) for r in range(1, most + 1) for c in range(1, most + 1) if least <= r * c <= most]
    ratio = height / width
    return min(grids, key=lambda grid: (abs(math.log(grid[0] / grid[1] / ratio)), -grid[0] * grid[1]))
