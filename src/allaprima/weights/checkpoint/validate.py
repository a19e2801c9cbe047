"""Strict validation of weights: a file must have exactly a network's tensors, in their shapes, with finite values."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.errors import WeightsCorrupt


def check_shapes(path: Path, network: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a file has exactly the tensors of a network. found: the file's shapes by canonical name.

    Raises `WeightsCorrupt` naming file and tensor for a missing tensor, an unexpected tensor or another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if missing := expected.keys() - found.keys():
        raise WeightsCorrupt(f"{path} lacks the tensor {min(missing)} ({len(missing)} in all)")
    if unexpected := found.keys() - expected.keys():
        raise WeightsCorrupt(f"{path} has the unexpected tensor {min(unexpected)} ({len(unexpected)} in all)")
    for name, shape in found.items():
        if shape != expected[name]:
            raise WeightsCorrupt(f"{path}: the tensor {name} has the shape {shape}, not {expected[name]}")


def check_values(path: Path, name: str, tensor: Tensor) -> None:
    """Check that a tensor has a floating-point dtype and finite values.

    Raises `WeightsCorrupt` naming file and tensor.
    """
    if not tensor.is_floating_point():
        raise WeightsCorrupt(f"{path}: the tensor {name} has the dtype {tensor.dtype}; weights are floating-point")
    # `torch.isfinite` does not support float8.
    if not torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor).all():
        raise WeightsCorrupt(f"{path}: the tensor {name} holds values that are not finite")
