"""Precisions of a model's weights: which linears are quantized, to which format, and how much memory a model needs.

The linears of the transformer's and of T5's blocks are quantized; they have 99 % of FLUX.1's weights. Norms, biases,
embedders, the final layer, CLIP and the autoencoder stay in 16 bits: they are small, and rounding errors in them affect
the whole image.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from allaprima.domain.models import Precision
from allaprima.errors import WeightsTooLarge
from allaprima.flux import ModelConfig, meta_device
from allaprima.kernels import Float8Linear, Int4WeightLinear, Int8Linear, Int8WeightLinear, QuantizedLinear
from allaprima.kernels.library import IsaLevel, level
from allaprima.weights.memory import available_bytes
from allaprima.weights.networks import Networks

#: The class that replaces `nn.Linear` in each quantized precision.
LINEARS: Mapping[Precision, type[QuantizedLinear]] = {
    Precision.FP8: Float8Linear,
    Precision.INT8: Int8Linear,
    Precision.INT8WO: Int8WeightLinear,
    Precision.INT4WO: Int4WeightLinear,
}
#: Default precisions in order of preference; the first that fits in memory is used. On a CPU without fast bfloat16
#: only the last is tried.
PREFERRED = (Precision.BF16, Precision.INT8)
#: Least memory in bytes that generation needs in addition to the weights.
WORKING_BYTES = 2 * 2**30
_MODULATION = re.compile(r"transformer\..*\.(img_mod|txt_mod|modulation)(\.|$)")
_PACKED = re.compile(r"(transformer\.(double_blocks|single_blocks)|t5\.encoder\.block)\.")


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the dtype of the activations and of the weights that are not quantized."""
    return torch.float32 if precision == Precision.FP32 else torch.bfloat16


def build_networks(config: ModelConfig, precision: Precision) -> Networks:
    """Return networks on the meta device, with the linears of a precision. `load_state_dict` can assign the weights."""
    dtype = dtype_of(precision)
    with meta_device():
        networks = Networks(config).to(dtype)
    if kind := LINEARS.get(precision):
        for name, module in list(networks.named_modules()):
            if isinstance(module, nn.Linear) and _PACKED.match(name):
                networks.set_submodule(name, kind.like(module, dtype))
    return networks.requires_grad_(requires_grad=False).eval()


def pack(networks: Networks, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Convert one tensor of a checkpoint to entries of `networks.state_dict()`, by name.

    The entries are the tensor itself or, for a quantized linear's weight, the linear's buffers. name: the tensor's name
    in networks without quantization.
    """
    module_name, _, leaf = name.rpartition(".")
    module = networks.get_submodule(module_name)
    if leaf == "weight" and isinstance(module, QuantizedLinear):
        return {f"{module_name}.{buffer}": packed for buffer, packed in module.pack(tensor).items()}
    return {name: tensor.to(getattr(module, leaf).dtype)}


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices fast.

    On a CPU without allaprima's AVX-512 kernels, torch multiplies bfloat16 hundreds of times slower than float32.
    """
    return device != "cpu" or level() >= IsaLevel.AVX512


def widen(networks: Networks) -> None:
    """Convert the weights that are not quantized to float32, for a device without fast bfloat16.

    The activations have the dtype of these weights, so they become float32 too.
    """
    for module in networks.modules():
        if not isinstance(module, QuantizedLinear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Size of a model's weights in one precision, in bytes."""

    #: All weights. Packed weights have the same size on disk.
    whole: int
    #: The weights of T5, which runs once per new prompt.
    text: int
    #: The weights of the blocks' modulations, which run once per prompt, for all steps together.
    modulation: int


@cache
def footprint(config: ModelConfig, precision: Precision) -> Footprint:
    """Return the size of a model's weights in a precision."""
    sizes = {name: tensor.nbytes for name, tensor in build_networks(config, precision).state_dict().items()}
    return Footprint(
        sum(sizes.values()),
        sum(size for name, size in sizes.items() if is_text(name)),
        sum(size for name, size in sizes.items() if is_modulation(name)),
    )


def is_text(name: str) -> bool:
    """Whether a tensor or module of `Networks` belongs to T5."""
    return name.startswith("t5.")


def is_modulation(name: str) -> bool:
    """Whether a tensor or module of `Networks` belongs to a block's modulation."""
    return bool(_MODULATION.match(name))


def needed_bytes(config: ModelConfig, precision: Precision, device: str) -> int:
    """Return the least memory that generation needs, in bytes, including the weights."""
    found = footprint(config, precision)
    can_stream = device == "cpu" and precision in LINEARS
    return WORKING_BYTES + found.whole - (found.text + found.modulation if can_stream else 0)


def is_memory_short(config: ModelConfig, precision: Precision, device: str) -> bool:
    """Whether free memory is too small to keep T5 loaded between two prompts."""
    free = available_bytes(device)
    return free is not None and needed_bytes(config, precision, device) + footprint(config, precision).text > free


def mapped_bytes(config: ModelConfig, precision: Precision, device: str) -> int:
    """Return the size of a loaded checkpoint's memory-mapped weights, which the system counts as free memory.

    The system may drop mapped weights, but then every image reads them from the disk.
    """
    is_mapped = device == "cpu" and precision in LINEARS
    return needed_bytes(config, precision, device) - WORKING_BYTES if is_mapped else 0


def choose_precision(
    name: str, config: ModelConfig, requested: Precision | None, device: str, mapped: int = 0
) -> Precision:
    """Return the requested precision or, if that is None, the first precision of `PREFERRED` that fits in free memory.

    name: the model's name in the message. mapped: `mapped_bytes` of the models that are already loaded. Raises
    `WeightsTooLarge` when the model does not fit in memory; the message names the precisions that do.
    """
    free = available_bytes(device)
    free = None if free is None else max(0, free - mapped)
    candidates = (requested,) if requested else PREFERRED if multiplies_bfloat16(device) else PREFERRED[-1:]
    if free is None:
        return candidates[0]
    for precision in candidates:
        if needed_bytes(config, precision, device) <= free:
            return precision
    least = candidates[-1]
    others = [
        f"{other} ({_gib(needed)})"
        for other in Precision
        if can_run(other, device) and (needed := needed_bytes(config, other, device)) <= free
    ]
    raise WeightsTooLarge(
        f"{name} needs {_gib(needed_bytes(config, least, device))} of memory in {least}, and {_gib(free)} are free on "
        f"{device}{' next to the models before it' if mapped else ''}; "
        + (f"ask for {' or '.join(others)} with --precision" if others else "no other precision fits")
    )


def can_run(precision: Precision, device: str) -> bool:
    """Whether a device supports a precision: float8 needs a GPU of compute capability 8.9 or more, others none."""
    if precision != Precision.FP8:
        return True
    return device == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
