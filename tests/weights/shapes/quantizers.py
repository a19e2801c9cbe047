"""Number formats of public files, written independently of the loader.

Sources: NF4: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), appendix E, and bitsandbytes `functional.py`. The stored
bytes, scales and states were compared with those of bitsandbytes 0.50.2 on CPU: equal, except for the sign of zero in
FP4 and for ties. float8: ComfyUI QUANTIZATION.md.
"""

import json
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from tests.weights.published import Tensors

Change = Callable[[Tensors], Tensors]


def bytes_tensor(text: str) -> Tensor:
    """Return a text as a tensor of bytes, as ComfyUI and bitsandbytes store JSON."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def is_linear(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is the matrix of a linear layer; embeddings are not."""
    embeddings = ("shared.", "embed_tokens.", "relative_attention_bias.", "_embedding.")
    return name.endswith(".weight") and tensor.ndim == 2 and not any(one in name for one in embeddings)


# NF4 ------------------------------------------------------------------------------------------------------------------


def nf4_code() -> Tensor:
    """Return the 16 values of NF4: quantiles of the normal distribution, zero included, divided by the largest."""
    offset = 0.9677083
    quantile = NormalDist().inv_cdf
    positive = [quantile(float(p)) for p in torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1]]
    negative = [-quantile(float(p)) for p in torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1]]
    values = torch.tensor(sorted([*positive, 0.0, *negative]), dtype=torch.float64)
    return (values / values.max()).float()


def fp4_code() -> Tensor:
    """Return the 16 values of bitsandbytes' FP4, in the order of their bits: sign, 2 exponent bits, 1 mantissa bit."""
    half = [0, 0.0625, 8, 12, 4, 6, 2, 3]
    return torch.tensor([*half, *(-value for value in half)]) / 12


def dynamic_code() -> Tensor:
    """Return the 256 values of bitsandbytes' dynamic 8-bit format, sorted: the format of nested scales."""
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        means = (bounds[:-1] + bounds[1:]) / 2 * 10 ** (exponent - 6)
        values += [*means.tolist(), *(-means).tolist()]
    return torch.tensor(sorted(values), dtype=torch.float32)


def nearest(values: Tensor, code: Tensor) -> Tensor:
    """Return the index of the nearest entry of a code."""
    return (values[..., None] - code).abs().argmin(-1).to(torch.uint8)


def padded_blocks(values: Tensor, size: int) -> Tensor:
    """Return values in rows of one block each; the last is filled up with zeros."""
    return torch.nn.functional.pad(values, (0, -len(values) % size)).reshape(-1, size)


def bnb4(name: str, weight: Tensor, *, nested: bool = False, block: int = 64, kind: str = "nf4") -> Tensors:
    """Return the tensors that bitsandbytes stores for one matrix of a linear layer."""
    code = nf4_code() if kind == "nf4" else fp4_code()
    blocks = padded_blocks(weight.float().flatten(), block)
    absmax = blocks.abs().amax(1)
    indices = nearest(blocks / absmax[:, None].clamp_min(1e-30), code).flatten()[: weight.numel()]
    if len(indices) % 2:
        indices = torch.cat((indices, indices.new_zeros(1)))
    packed = (indices[0::2] << 4 | indices[1::2])[:, None].contiguous()
    state: dict[str, object] = {
        "quant_type": kind,
        "blocksize": block,
        "dtype": "bfloat16",
        "shape": list(weight.shape),
    }
    stored = {name: packed, f"{name}.quant_map": code}
    if nested:
        offset = absmax.mean()
        outer = padded_blocks(absmax - offset, 256)
        outer_absmax = outer.abs().amax(1)
        stored[f"{name}.absmax"] = nearest(outer / outer_absmax[:, None], dynamic_code()).flatten()[: len(absmax)]
        stored[f"{name}.nested_absmax"] = outer_absmax
        stored[f"{name}.nested_quant_map"] = dynamic_code()
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
    else:
        stored[f"{name}.absmax"] = absmax
    stored[f"{name}.quant_state.bitsandbytes__{kind}"] = bytes_tensor(json.dumps(state))
    return stored


def in_bnb4(only: str = "", **options: object) -> Change:
    """Return a function that stores the matrices of linear layers, whose names contain `only`, in 4 bits."""

    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {}
        for name, tensor in tensors.items():
            is_stored = is_linear(name, tensor) and only in name
            changed |= bnb4(name, tensor, **options) if is_stored else {name: tensor}
        return changed

    return change


# 8 bits ---------------------------------------------------------------------------------------------------------------


def in_dtype(dtype: torch.dtype) -> Change:
    """Return a function that stores all tensors in one dtype."""
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


def scaled(
    suffix: str = ".weight_scale",
    dtype: torch.dtype = torch.float8_e4m3fn,
    scale_shape: tuple[int, ...] = (),
    container: torch.dtype | None = None,
    marker: str | None = None,
) -> Change:
    """Return a function that stores linear layers in 8 bits with a scale for each layer: its largest value is stored as
    the dtype's largest.

    container: the dtype that the file declares for the same bytes. marker: JSON of `.comfy_quant`.
    """

    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {}
        for name, tensor in tensors.items():
            if not is_linear(name, tensor):
                changed[name] = tensor
                continue
            layer = name.removesuffix(".weight")
            largest = torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max
            scale = tensor.float().abs().max() / largest
            values = tensor.float() / scale
            stored = (values if dtype.is_floating_point else values.round()).to(dtype)
            changed[name] = stored if container is None else stored.view(container)
            changed[layer + suffix] = scale.reshape(scale_shape)
            if marker is not None:
                changed[f"{layer}.comfy_quant"] = bytes_tensor(marker)
        return changed

    return change


def int8_rows(marker: str | None = None) -> Change:
    """Return a function that stores linear layers in int8 with a scale for each row."""

    def change(tensors: Tensors) -> Tensors:
        changed: Tensors = {}
        for name, tensor in tensors.items():
            if not is_linear(name, tensor):
                changed[name] = tensor
                continue
            layer = name.removesuffix(".weight")
            scale = tensor.float().abs().amax(1, keepdim=True) / 127
            changed[name] = (tensor.float() / scale).round().to(torch.int8)
            changed[f"{layer}.weight_scale"] = scale
            if marker is not None:
                changed[f"{layer}.comfy_quant"] = bytes_tensor(marker)
        return changed

    return change


def hadamard(size: int) -> Tensor:
    """Return the orthonormal Hadamard matrix of a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / size**0.5


def rotated(tensors: Tensors) -> Tensors:
    """Rotate the rows of linear layers in groups of 16 values, as `convrot` does in groups of 256."""
    turn = hadamard(16)
    return {
        name: (tensor.float().reshape(len(tensor), -1, 16) @ turn).reshape(tensor.shape)
        if is_linear(name, tensor)
        else tensor
        for name, tensor in tensors.items()
    }
