"""Strict validation of weights: exactly the tensors of the networks, in their shapes and with finite values."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.errors import WeightsCorrupt


def check_shapes(path: Path, network: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's tensors, by our names, to those of a network.

    Raises `WeightsCorrupt` naming file and tensor for a missing tensor, an unexpected tensor or another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if missing := wanted.keys() - found.keys():
        raise WeightsCorrupt(f"{path} lacks the tensor {min(missing)} ({len(missing)} in all)")
    if unexpected := found.keys() - wanted.keys():
        raise WeightsCorrupt(f"{path} has the unexpected tensor {min(unexpected)} ({len(unexpected)} in all)")
    for name, shape in found.items():
        if shape != wanted[name]:
            raise WeightsCorrupt(f"{path}: the tensor {name} has the shape {shape}, not {wanted[name]}")


def check_values(path: Path, name: str, tensor: Tensor) -> None:
    """Check that a tensor holds finite floating-point numbers. Raises `WeightsCorrupt` naming file and tensor."""
    if not tensor.is_floating_point():
        raise WeightsCorrupt(f"{path}: the tensor {name} is stored in {tensor.dtype}, which holds no weights")
    # `torch.isfinite` does not support float8.
    if not torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor).all():
        raise WeightsCorrupt(f"{path}: the tensor {name} holds values that are not finite")
