"""Helpers of the compiled kernels' tests."""

import contextlib
import ctypes
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel

NEEDS_AVX512 = pytest.mark.skipif(
    library.level() < IsaLevel.AVX512, reason="the compiled kernels need a CPU with AVX-512 VNNI and BF16"
)
AT_EVERY_LEVEL = pytest.mark.usefixtures("_every_level")
#: bfloat16 has 8 bits: rounding a result to it gives a relative error of 2^-8 at most.
ROUNDING = 2**-8


def draw(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16()


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_bits_with_any_threads(work: Callable[[], Tensor]) -> bool:
    actual = []
    for count in (1, 2, 5):
        with threads(count):
            actual.append(work().clone())
    return all(torch.equal(each.view(torch.int16), actual[0].view(torch.int16)) for each in actual)


def cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def at_the_end_of_memory(x: Tensor) -> Tensor:
    """Return a copy that ends at an unreadable page, so that a read past its end crashes."""
    pages = -(-x.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address + pages), ctypes.c_size_t(mmap.PAGESIZE), 0):
        raise OSError(ctypes.get_errno(), "mprotect failed")
    copy = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=pages - x.nbytes)
    return copy.view(x.shape).copy_(x)
