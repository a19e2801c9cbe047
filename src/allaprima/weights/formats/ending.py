"""Finds files whose end holds only zeros: a download that broke off after the file had got its full size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from allaprima.errors import WeightsCorrupt

#: Fewest bytes of zeros at the end of a matrix that say that its download broke off, and the most that are looked at.
#: The rows of unused tokens at the end of an embedding may be zeros: T5 has 28, in float32 448 KiB.
_FEWEST, _MOST = 4096, 2**20
#: Smallest matrix in bytes that can't be zero.
_SMALLEST = 256
#: Bytes that are looked at to find where the zeros begin.
_STEP = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor's bytes are in a file."""

    name: str
    begin: int
    end: int
    #: Number of axes.
    axes: int


def suspicious_run(size: int) -> int:
    """Return how many zeros at the end of a matrix are not accepted. size: of the matrix; both in the same unit."""
    return min(size, max(_FEWEST, min(_MOST, size // 4)))


def check_ending(path: Path, spans: Iterable[Span]) -> None:
    """Check that the last matrix in a file does not end in zeros. Vectors may be zero, such as the biases of a layer.

    Raises `WeightsCorrupt` naming file and tensor.
    """
    with path.open("rb") as file:
        for span in sorted(spans, key=lambda one: one.end, reverse=True):
            size = span.end - span.begin
            run = suspicious_run(size) if span.axes > 1 else size
            if not size or run > _MOST:
                return
            if not _is_zero(file, span.end - run, run):
                return
            # A matrix of a few bytes, such as a scale of shape (1, 1), may be zero like a vector.
            if span.axes > 1 and size >= _SMALLEST:
                begin = _first_zero(file, span.end)
                raise WeightsCorrupt(
                    f"{path} holds only zeros from about byte {begin} on, in the tensor {span.name}: the download "
                    "broke off; download it again"
                )


def _is_zero(file: BinaryIO, offset: int, count: int) -> bool:
    file.seek(offset)
    return not file.read(count).strip(b"\0")


def _first_zero(file: BinaryIO, end: int) -> int:
    """Return where the zeros before `end` begin, if all that lies before them is not zero."""
    low, high = 0, max(0, end - _STEP)
    while low + _STEP < high:
        middle = (low + high) // 2
        if _is_zero(file, middle, _STEP):
            high = middle
        else:
            low = middle
    file.seek(low)
    return low + len(file.read(min(3 * _STEP, end - low)).rstrip(b"\0"))
