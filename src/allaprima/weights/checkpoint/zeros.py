"""Finds matrices that a broken download left as zeros."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.ending import suspicious_run

if TYPE_CHECKING:
    from torch import Tensor

#: Fewest values of a matrix that can't all be zero.
_SMALLEST = 64
#: Number of values in a row of which some must not be zero, and of those that are looked at first.
_RUN, _FIRST = 2**20, 256


def check_not_zero(path: Path, name: str, tensor: Tensor) -> None:
    """Check that a matrix, or a convolution's weight, has no long run of zeros, as a download that broke off has.

    Raises `WeightsCorrupt` naming file and tensor.
    """
    if tensor.ndim < 2 or tensor.numel() < _SMALLEST:
        return
    flat = tensor.reshape(-1)
    if flat.dtype.itemsize == 1:
        import torch

        # torch compares no float8. The bytes of a download that broke off are zero.
        flat = flat.view(torch.uint8)
    problem = None
    if not flat[:_FIRST].any() and not flat.any():
        problem = "holds only zeros"
    elif (
        not flat[-min(_FIRST, suspicious_run(flat.numel())) :].any() and not flat[-suspicious_run(flat.numel()) :].any()
    ):
        problem = "ends in zeros"
    else:
        runs = flat[: flat.numel() // _RUN * _RUN].view(-1, _RUN)
        empty = (runs[:, :_FIRST] == 0).all(1).nonzero().flatten().tolist()
        if any(not runs[row].any() for row in empty):
            problem = f"has {_RUN} zeros in a row"
    if problem:
        raise WeightsCorrupt(f"{path}: the tensor {name} {problem}: the download broke off; download it again")
