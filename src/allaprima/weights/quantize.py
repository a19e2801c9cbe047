"""How a model's numbers are kept: which of its linears are packed, into what, and how many bytes that makes.

Packed are the linears of the transformer's and of T5's blocks, which are 99 % of FLUX.1. Norms, biases, embedders, the
final layer, CLIP and the autoencoder stay in 16 bits: they are small, and what goes wrong in them spreads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allaprima.domain.models import Precision
from allaprima.errors import WeightsTooLarge
from allaprima.flux import ModelConfig
from allaprima.kernels import Float8Linear, Int4WeightLinear, Int8Linear, Int8WeightLinear, QuantizedLinear
from allaprima.kernels.library import IsaLevel, level
from allaprima.weights.memory import available_bytes
from allaprima.weights.networks import Networks

#: What replaces a linear in each precision that packs.
LINEARS: Mapping[Precision, type[QuantizedLinear]] = {
    Precision.FP8: Float8Linear,
    Precision.INT8: Int8Linear,
    Precision.INT8WO: Int8WeightLinear,
    Precision.INT4WO: Int4WeightLinear,
}
#: What a checkpoint is read in when nobody says, the first that fits, where bfloat16 is
#: multiplied quickly; elsewhere the last.
PREFERRED = (Precision.BF16, Precision.INT8)
#: Memory concat_into the weights that painting takes, at least.
WORKING_BYTES = 2 * 2**30
_MODULATION = re.compile(r"transformer\..*\.(img_mod|txt_mod|modulation)(\.|$)")
_PACKED = re.compile(r"(transformer\.(double_blocks|single_blocks)|t5\.encoder\.block)\.")


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the dtype of what is not packed, and of the activations."""
    return torch.float32 if precision == Precision.FP32 else torch.bfloat16


def build_networks(config: ModelConfig, precision: Precision) -> Networks:
    """Return networks without numbers, on the meta device, into which tensors of a precision can be loaded."""
    dtype = dtype_of(precision)
    with torch.device("meta"):
        networks = Networks(config).to(dtype)
    if kind := LINEARS.get(precision):
        for name, module in list(networks.named_modules()):
            if isinstance(module, nn.Linear) and _PACKED.match(name):
                networks.set_submodule(name, kind.like(module, dtype))
    return networks.requires_grad_(requires_grad=False).eval()


def pack(networks: Networks, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return what the networks keep of one tensor of a checkpoint, by the names of their state.

    name: as in networks that pack nothing.
    """
    home, _, leaf = name.rpartition(".")
    module = networks.get_submodule(home)
    if leaf == "weight" and isinstance(module, QuantizedLinear):
        return {f"{home}.{part}": packed for part, packed in module.pack(tensor).items()}
    return {name: tensor.to(getattr(module, leaf).dtype)}


def multiplies_bfloat16(device: str) -> bool:
    """Say whether a device multiplies bfloat16 quickly: a CPU without the kernels for that takes hundreds of times as
    long as in float32.
    """
    return device != "cpu" or level() >= IsaLevel.AVX512


def widen(networks: Networks) -> None:
    """Bring what is not packed into float32, and so all activations: for a device that multiplies bfloat16 slowly."""
    for module in networks.modules():
        if not isinstance(module, QuantizedLinear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


@dataclass(frozen=True, slots=True)
class Footprint:
    """The bytes of a model's weights in one precision."""

    #: All of them, which is also what a packed form takes on the disk.
    whole: int
    #: Those of T5, which reads a prompt that is new.
    text: int
    #: Those of the linears of the blocks' modulations, which are asked once for all steps of a prompt.
    modulation: int


def footprint(config: ModelConfig, precision: Precision) -> Footprint:
    """Return the bytes that a model's weights take."""
    sizes = {name: tensor.nbytes for name, tensor in build_networks(config, precision).state_dict().items()}
    return Footprint(
        sum(sizes.values()),
        sum(size for name, size in sizes.items() if is_text(name)),
        sum(size for name, size in sizes.items() if is_modulation(name)),
    )


def is_text(name: str) -> bool:
    """Say whether a tensor or module of `Networks` is T5's."""
    return name.startswith("t5.")


def is_modulation(name: str) -> bool:
    """Say whether a tensor or module of `Networks` is, or is part of, a block's modulation."""
    return bool(_MODULATION.match(name))


def needed_bytes(config: ModelConfig, precision: Precision, device: str) -> int:
    """Return the bytes of memory that painting takes at least, weights included."""
    found = footprint(config, precision)
    is_lent = device == "cpu" and precision in LINEARS
    return WORKING_BYTES + found.whole - (found.text + found.modulation if is_lent else 0)


def is_short(config: ModelConfig, precision: Precision, device: str) -> bool:
    """Say whether memory is too short for T5 to stay in it between two prompts."""
    free = available_bytes(device)
    return free is not None and needed_bytes(config, precision, device) + footprint(config, precision).text > free


def choose_precision(name: str, config: ModelConfig, asked: Precision | None, device: str) -> Precision:
    """Return the precision that was asked for, or else the preferred one that fits.

    name: of the model, for the message. Raises `WeightsTooLarge` where it would not fit the memory that is free, with
    those that would.
    """
    free = available_bytes(device)
    candidates = (asked,) if asked else PREFERRED if multiplies_bfloat16(device) else PREFERRED[-1:]
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
        f"{device}; " + (f"ask for {' or '.join(others)} with --precision" if others else "no other precision fits")
    )


def can_run(precision: Precision, device: str) -> bool:
    """Say whether a device multiplies a precision's numbers: float8 needs a GPU of compute capability 8.9."""
    if precision != Precision.FP8:
        return True
    return device == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
