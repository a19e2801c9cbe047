"""Reused memory for results.

The allocator returns a large block to the system when it is freed, and the system clears every page of the next one:
6 % of a step of FLUX.1 at 512x512. Each thread keeps blocks of its own instead, `LIMIT` bytes at most.
"""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Bytes of a line of the caches.
LINE = 64
#: Results of fewer bytes come from the allocator.
LEAST = 2**20
#: Most bytes that a thread keeps. A block that does not fit comes from the allocator.
LIMIT = 2**28


class _Block:
    """Memory that is lent to one array at a time."""

    def __init__(self, nbytes: int) -> None:
        self._memory = _aligned(nbytes)
        self._lent: weakref.ref[NDArray[np.uint8]] | None = None
        self.nbytes = nbytes

    @property
    def is_idle(self) -> bool:
        """Whether the array over it is gone, and every view and tensor of that array: each keeps it alive."""
        return self._lent is None or self._lent() is None

    def lend(self) -> NDArray[np.uint8]:
        """Return the whole block as a new array; the block is idle again when that array is gone."""
        # Over a memoryview: a view of a plain slice keeps the memory alive, not the slice, which would then look idle.
        array = np.frombuffer(self._memory.data, np.uint8)
        self._lent = weakref.ref(array)
        return array


class Workspace(threading.local):
    """The blocks of one thread."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return memory that no other living array or tensor uses: of `nbytes` bytes, or up to a quarter more."""
        for block in self.blocks:
            if nbytes <= block.nbytes <= nbytes + nbytes // 4 and block.is_idle:
                return block.lend()
        block = _Block(nbytes)
        if self._kept_bytes() + nbytes > LIMIT:
            self.blocks = [each for each in self.blocks if not each.is_idle]
        if self._kept_bytes() + nbytes <= LIMIT:
            self.blocks.append(block)
        return block.lend()

    def _kept_bytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Return memory that starts at a cache line: a value across two lines is read twice."""
    whole = np.empty(nbytes + LINE, np.uint8)
    start = -whole.ctypes.data % LINE
    return whole[start : start + nbytes]


_workspace = Workspace()


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor on `like`'s device, of `like`'s dtype unless another is given."""
    dtype = dtype or like.dtype
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST or like.device.type != "cpu":
        return like.new_empty(tuple(shape), dtype=dtype)
    memory = torch.from_numpy(_workspace.take(nbytes))
    return memory[:nbytes].view(dtype).view(tuple(shape))
