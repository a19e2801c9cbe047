"""Memory for results that is used again and again.

The system takes large pieces of memory back as soon as they are freed, and clears every page of them when it gives
them anew: 6 % of a step of FLUX.1 at 512x512. Here a thread keeps pieces of its own, `LIMIT` bytes at most.
"""

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Bytes of a line of the caches.
LINE = 64
#: Smaller pieces are the system's.
LEAST = 2**20
#: Most bytes of the pieces that a thread keeps. What is larger than the room that is left is the system's.
LIMIT = 2**28


class Workspace(threading.local):
    """One thread's pieces."""

    def __init__(self) -> None:
        self.pieces: list[NDArray[np.uint8]] = []

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return a piece that no tensor lies in: of that size, or up to a quarter more."""
        idle = [i for i, size in enumerate(self._idle_sizes()) if nbytes <= size <= nbytes + nbytes // 4]
        if idle:
            return self.pieces[idle[0]]
        piece = _aligned(nbytes)
        if sum(each.nbytes for each in self.pieces) + nbytes > LIMIT:
            self.pieces = [each for each, size in zip(self.pieces, self._idle_sizes(), strict=True) if not size]
        if sum(each.nbytes for each in self.pieces) + nbytes <= LIMIT:
            self.pieces.append(piece)
        return piece

    def _idle_sizes(self) -> list[int]:
        """Return each piece's size, 0 where a tensor lies in it."""
        # A tensor keeps a reference to the array that it lies in; the list and the two of the call are ours.
        return [0 if sys.getrefcount(self.pieces[i]) > 2 else self.pieces[i].nbytes for i in range(len(self.pieces))]


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Return a piece that begins where a line of the caches does: what lies across two is read twice."""
    whole = np.empty(nbytes + LINE, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + nbytes]


_workspace = Workspace()


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor without numbers, on like's device; of its dtype, unless another is told."""
    dtype = dtype or like.dtype
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST or like.device.type != "cpu":
        return like.new_empty(tuple(shape), dtype=dtype)
    piece = torch.from_numpy(_workspace.take(nbytes))
    return piece[:nbytes].view(dtype).view(tuple(shape))
