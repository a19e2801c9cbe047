"""Processes that draw scenes, one a core, while what they drew before is looked at."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from allaprima.train.art import Art
from allaprima.train.pictures import canvas_px, scene_pixels
from allaprima.train.scenes import SIZES

#: Scenes that one process draws at a time.
PART = 8

#: The art of a process of ours, once it has one.
_art: Art | None = None


class Painters:
    """As many processes as there are cores, each with its own art, from when there is first enough to draw."""

    def __init__(self, art: Art) -> None:
        self._own_art = art
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def drawn(self, seeds: range, width: int, height: int) -> Iterator[Tensor]:
        """Yield drawn scenes, `PART` at a time and in order: (at most PART, 3, height, width), uint8."""
        parts = [seeds[first : first + PART] for first in range(0, len(seeds), PART)]
        if len(parts) == 1:
            # Not worth the start of a process.
            return iter([scene_pixels(seeds, self._own_art, width, height)])
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(os.cpu_count(), context, _begin, (self._own_art.folder,))
        return self._pool.map(partial(_draw, width, height), parts)

    def pool(self, count: int, first: int = 0) -> list[Tensor]:
        """Return about `count` drawn scenes, from number `first` on, by canvas: (scenes, 3, height, width), uint8."""
        pool = []
        for size, share in SIZES.items():
            seeds = range(first, first + max(1, round(count * share)))
            first = seeds.stop
            width, height = canvas_px(*size)
            pixels = torch.empty(len(seeds), 3, height, width, dtype=torch.uint8)
            places = pixels.split(PART)
            for place, part in zip(places, self.drawn(seeds, width, height), strict=True):
                place.copy_(part)
            pool.append(pixels)
        return pool


def _begin(folder: Path) -> None:
    global _art  # noqa: PLW0603 - a process's own, set as it starts
    torch.set_num_threads(1)
    _art = Art(folder)


def _draw(width: int, height: int, seeds: range) -> Tensor:
    assert _art is not None
    return scene_pixels(seeds, _art, width, height)
