"""What the compiled kernels' tests share."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allaprima.kernels import library
from allaprima.kernels.library import Level

NEEDS_AVX512 = pytest.mark.skipif(
    library.level() < Level.AVX512, reason="the compiled kernels want AVX-512 VNNI and BF16, which this CPU has not"
)
#: bfloat16 has 8 bits: rounding a result to it gives a relative error of 2^-8 at most.
ROUNDING = 2**-8


def draw(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16()


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_bits_with_any_threads(work: Callable[[], Tensor]) -> bool:
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(work().clone())
    return all(torch.equal(each.view(torch.int16), found[0].view(torch.int16)) for each in found)


def cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())
