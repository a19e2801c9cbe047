"""Drawn scenes as tensors, drawn by other processes where they are many: what the fits look at."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allaprima.flux import SKETCH
from allaprima.flux.latents import token_grid
from training.art import Art
from training.scenes import SIZES, compose, draw_pixels

#: Scenes that one process draws at a time.
PART = 8

#: The art of a process that draws, once it has one.
_art: Art | None = None


def canvas_px(width: int, height: int) -> tuple[int, int]:
    """Return the width and height in pixels of the canvas on which the model paints a picture of that size."""
    rows, columns = token_grid(width, height, SKETCH.token_px, SKETCH.native_tokens)
    return columns * SKETCH.token_px, rows * SKETCH.token_px


#: The canvas of a square picture.
SQUARE = canvas_px(512, 512)


class Painters:
    """As many processes as there are cores, each with its own art: from when there is first enough to draw, to the end
    of the `with`.
    """

    def __init__(self, art: Art) -> None:
        self._own_art = art
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def drawn(self, seeds: Sequence[int], width: int, height: int) -> Iterator[Tensor]:
        """Return drawn scenes as they come, in order: (at most PART, 3, height, width), uint8; all are begun now."""
        parts = [seeds[first : first + PART] for first in range(0, len(seeds), PART)]
        if len(parts) == 1:
            # Not worth the start of a process.
            return iter([torch.from_numpy(_pixels(self._own_art, width, height, seeds))])
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(os.cpu_count(), context, _begin, (self._own_art.folder,))
        return map(torch.from_numpy, self._pool.map(partial(_draw, width, height), parts))

    def pixels(self, seeds: range, width: int = SQUARE[0], height: int = SQUARE[1]) -> Tensor:
        """Return drawn scenes: (len(seeds), 3, height, width), uint8."""
        pixels = torch.empty(len(seeds), 3, height, width, dtype=torch.uint8)
        for place, part in zip(pixels.split(PART), self.drawn(seeds, width, height), strict=True):
            place.copy_(part)
        return pixels

    def pool(self, count: int) -> list[Tensor]:
        """Return about `count` drawn scenes, the first by number, by canvas: (scenes, 3, height, width), uint8."""
        pool, first = [], 0
        for size, share in SIZES.items():
            seeds = range(first, first + max(1, round(count * share)))
            first = seeds.stop
            pool.append(self.pixels(seeds, *canvas_px(*size)))
        return pool


def _begin(folder: Path) -> None:
    global _art  # noqa: PLW0603 - a process's own, set as it starts
    torch.set_num_threads(1)
    _art = Art(folder)


def _draw(width: int, height: int, seeds: Sequence[int]) -> NDArray[np.uint8]:
    assert _art is not None
    return _pixels(_art, width, height, seeds)


def _pixels(art: Art, width: int, height: int, seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Return drawn scenes: (len(seeds), 3, height, width)."""
    pictures = np.stack([draw_pixels(compose(seed, width, height), art) for seed in seeds])
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def pick_canvas(pool: list[Tensor]) -> Tensor:
    """Return one canvas's scenes, each canvas as often as it has scenes."""
    return pool[int(torch.multinomial(torch.tensor([float(len(scenes)) for scenes in pool]), 1))]


def to_signed(pixels: Tensor) -> Tensor:
    """Levels, 0 to 255, of any dtype -> float32 in [-1, 1], same shape."""
    return pixels.float() / 127.5 - 1
