"""Renders scenes as tensors. Large numbers of scenes are rendered in parallel processes."""

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
from training.data.art import Art
from training.data.scenes import SIZES, compose, draw_pixels

#: Number of scenes in one task of a worker process.
SCENES_PER_TASK = 8

#: The art of a worker process, which `_start_worker` sets.
_worker_art: Art | None = None


def canvas_px(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of the canvas on which the model generates an image of width x height pixels."""
    rows, columns = token_grid(width, height, SKETCH.token_px, SKETCH.native_tokens)
    return columns * SKETCH.token_px, rows * SKETCH.token_px


#: Width and height of the canvas of a square image.
SQUARE = canvas_px(512, 512)


class SceneRenderer:
    """Renders scenes with one process per core.

    The processes start when several tasks are first submitted, and end with the `with` block.
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

    def render_chunks(self, seeds: Sequence[int], width: int, height: int) -> Iterator[Tensor]:
        """Yield rendered scenes in order, in chunks: (at most SCENES_PER_TASK, 3, height, width), uint8.

        The call submits all tasks; iterating waits for their results.
        """
        parts = [seeds[first : first + SCENES_PER_TASK] for first in range(0, len(seeds), SCENES_PER_TASK)]
        if len(parts) == 1:
            # Starting processes would take longer than rendering one task here.
            return iter([torch.from_numpy(_render(self._own_art, width, height, seeds))])
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(os.cpu_count(), context, _start_worker, (self._own_art.folder,))
        return map(torch.from_numpy, self._pool.map(partial(_render_in_worker, width, height), parts))

    def render(self, seeds: range, width: int = SQUARE[0], height: int = SQUARE[1]) -> Tensor:
        """Return rendered scenes: (len(seeds), 3, height, width), uint8."""
        pixels = torch.empty(len(seeds), 3, height, width, dtype=torch.uint8)
        for target, chunk in zip(pixels.split(SCENES_PER_TASK), self.render_chunks(seeds, width, height), strict=True):
            target.copy_(chunk)
        return pixels

    def render_pool(self, count: int) -> list[Tensor]:
        """Return about `count` rendered scenes, with seeds from 0 on, as one tensor per canvas of `SIZES`.

        Each tensor is (number of scenes, 3, height, width), uint8.
        """
        pool, first = [], 0
        for size, share in SIZES.items():
            seeds = range(first, first + max(1, round(count * share)))
            first = seeds.stop
            pool.append(self.render(seeds, *canvas_px(*size)))
        return pool


def _start_worker(folder: Path) -> None:
    global _worker_art  # noqa: PLW0603 - each process sets its own when it starts
    torch.set_num_threads(1)
    _worker_art = Art(folder)


def _render_in_worker(width: int, height: int, seeds: Sequence[int]) -> NDArray[np.uint8]:
    assert _worker_art is not None
    return _render(_worker_art, width, height, seeds)


def _render(art: Art, width: int, height: int, seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Return rendered scenes: (len(seeds), 3, height, width), uint8."""
    images = np.stack([draw_pixels(compose(seed, width, height), art) for seed in seeds])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def sample_canvas(pool: list[Tensor]) -> Tensor:
    """Return the scenes of a random canvas. The probability of a canvas is proportional to its number of scenes."""
    return pool[int(torch.multinomial(torch.tensor([float(len(scenes)) for scenes in pool]), 1))]


def to_signed(pixels: Tensor) -> Tensor:
    """Map levels 0 to 255, any dtype, to [-1, 1], float32, in the same shape."""
    return pixels.float() / 127.5 - 1
