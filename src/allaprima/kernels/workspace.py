"""A per-thread pool of memory blocks for the results of kernels.

The allocator returns a large freed block to the operating system, which then clears every page of the next block. That
takes 6 % of a step of FLUX.1 at 512x512. Instead, each thread reuses its own blocks, of at most `MAX_POOL_BYTES`.
"""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Size of a CPU cache line in bytes.
CACHE_LINE_BYTES = 64
#: Size of the smallest pooled result in bytes; the allocator serves smaller ones.
MIN_POOLED_BYTES = 2**20
#: Most bytes in one thread's pool. A block that exceeds it is not pooled.
MAX_POOL_BYTES = 2**28


class _Block:
    """A block of memory that at most one array uses at a time."""

    def __init__(self, nbytes: int) -> None:
        self._memory = _aligned(nbytes)
        self._array_ref: weakref.ref[NDArray[np.uint8]] | None = None
        self.nbytes = nbytes

    @property
    def is_idle(self) -> bool:
        """Whether no array uses the block. Views and tensors of the block's array keep that array alive."""
        return self._array_ref is None or self._array_ref() is None

    def acquire(self) -> NDArray[np.uint8]:
        """Return the whole block as a new array. The block is idle again when that array is freed."""
        # The array is created from a memoryview. A view of a slice of `_memory` would reference `_memory` instead of
        # the slice, so the slice could be freed, and the block be idle, while a view of it is still in use.
        array = np.frombuffer(self._memory.data, np.uint8)
        self._array_ref = weakref.ref(array)
        return array


class Workspace(threading.local):
    """The pool of one thread."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return an array that shares no memory with any live array or tensor. Its size is 1 to 1.25 times `nbytes`."""
        for block in self.blocks:
            if nbytes <= block.nbytes <= nbytes + nbytes // 4 and block.is_idle:
                return block.acquire()
        block = _Block(nbytes)
        if self._pooled_bytes() + nbytes > MAX_POOL_BYTES:
            self.blocks = [each for each in self.blocks if not each.is_idle]
        if self._pooled_bytes() + nbytes <= MAX_POOL_BYTES:
            self.blocks.append(block)
        return block.acquire()

    def _pooled_bytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Return an array that starts at a cache line, since a load across two lines costs two accesses."""
    whole = np.empty(nbytes + CACHE_LINE_BYTES, np.uint8)
    start = -whole.ctypes.data % CACHE_LINE_BYTES
    return whole[start : start + nbytes]


_workspace = Workspace()


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor on the device of `like`. dtype: that of `like` if None."""
    dtype = dtype or like.dtype
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < MIN_POOLED_BYTES or like.device.type != "cpu":
        return like.new_empty(tuple(shape), dtype=dtype)
    memory = torch.from_numpy(_workspace.take(nbytes))
    return memory[:nbytes].view(dtype).view(tuple(shape))
