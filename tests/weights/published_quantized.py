"""Writers of quantized tensors in the formats of bitsandbytes and ComfyUI, independent of the code under test."""

import json

import numpy as np
import torch
from torch import Tensor

from tests.weights.published import Tensors

#: Dettmers et al. 2023 (2305.14314), appendix E.
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
FP4 = [value / 12 for value in (0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3)]


def as_bytes(value: object) -> Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def pack_4bit(
    name: str, weight: Tensor, *, kind: str = "nf4", nested: bool = False, block: int = 64
) -> tuple[Tensors, Tensor]:
    """Return the tensors of one matrix as bitsandbytes stores them, and the values that they mean."""
    codes = np.array(NF4 if kind == "nf4" else FP4, np.float32)
    flat = weight.float().reshape(-1).numpy()
    padded = np.zeros(-(-len(flat) // block) * block, np.float32)
    padded[: len(flat)] = flat
    blocks = padded.reshape(-1, block)
    scales = np.maximum(np.abs(blocks).max(axis=1), np.float32(1e-6)).astype(np.float32)
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
    packed: Tensors = {f"{name}.quant_map": torch.from_numpy(codes)}
    if nested:
        offset = float(np.float32(scales.mean()))
        table = np.linspace(-1, 1, 256).astype(np.float32)
        groups = -(-len(scales) // 256)
        largest = np.array([np.abs(scales[256 * i : 256 * (i + 1)] - offset).max() + 1e-6 for i in range(groups)])
        largest = largest.astype(np.float32)
        outer = np.repeat(largest, 256)[: len(scales)]
        index = np.abs((scales - offset)[:, None] / outer[:, None] - table).argmin(axis=1).astype(np.uint8)
        scales = table[index] * outer + np.float32(offset)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
        packed[f"{name}.absmax"] = torch.from_numpy(index)
        packed[f"{name}.nested_absmax"] = torch.from_numpy(largest)
        packed[f"{name}.nested_quant_map"] = torch.from_numpy(table)
    else:
        packed[f"{name}.absmax"] = torch.from_numpy(scales)
    nearest = np.abs(blocks[:, :, None] / scales[:, None, None] - codes).argmin(axis=2).astype(np.uint8)
    values = (codes[nearest] * scales[:, None]).reshape(-1)[: len(flat)].reshape(weight.shape)
    pairs = np.append(nearest.reshape(-1)[: len(flat)], np.zeros(len(flat) % 2, np.uint8)).reshape(-1, 2)
    packed[name] = torch.from_numpy((pairs[:, 0] << 4) | pairs[:, 1])[:, None]
    packed[f"{name}.quant_state.bitsandbytes__{kind}"] = as_bytes(state)
    return packed, torch.from_numpy(values)


def in_4bit(tensors: Tensors, *, kind: str = "nf4", nested: bool = False) -> tuple[Tensors, Tensors]:
    """Return tensors with the matrices of the blocks in 4 bits, and the values that they mean."""
    stored, meant = dict(tensors), {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and "block" in name and "relative" not in name:
            packed, meant[name] = pack_4bit(name, tensor, kind=kind, nested=nested)
            stored |= packed
    return stored, meant


def declared(tensors: Tensors, kind: torch.dtype, *, stored_as: torch.dtype | None = None) -> Tensors:
    """Return tensors with matrices in float8 that `comfy_quant` declares. stored_as: the dtype of a container."""
    changed: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            changed[name] = tensor
            continue
        layer = name.removesuffix(".weight")
        in_float8 = (tensor * 4).to(kind)
        changed[name] = in_float8 if stored_as is None else in_float8.view(stored_as)
        changed[f"{layer}.weight_scale"] = torch.tensor(0.25)
        changed[f"{layer}.comfy_quant"] = as_bytes({"format": str(kind).removeprefix("torch.")})
    return changed
