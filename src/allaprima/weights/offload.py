"""Weight streaming: the weights of some linears are memory-mapped for each forward pass and released after it.

Released weights stay in the operating system's page cache while memory is free, so the next pass loads them quickly.
Under memory pressure the operating system can reclaim those pages, since no process maps them.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from allaprima.kernels import QuantizedLinear
from allaprima.weights.quantize import is_modulation, is_text

#: A function that reads tensors by name. Its argument has a tensor of the expected shape and dtype for each name.
ReadTensors = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def is_streamed(name: str, module: nn.Module, device: str, *, stream_text: bool) -> bool:
    """Whether a module of `Networks` is streamed: on a CPU, the quantized linears of modulations, and of T5 if
    `stream_text`.
    """
    is_candidate = is_modulation(name) or (stream_text and is_text(name))
    return device == "cpu" and is_candidate and isinstance(module, QuantizedLinear)


def stream_weights(module: nn.Module, name: str, read: ReadTensors) -> None:
    """Add hooks that load a module's weights before each forward pass and release them after it, even if it raises.

    module: a module on the meta device. name: its name in `Networks`, the prefix of its tensors' names in `read`.
    """
    placeholders = dict(module.state_dict())
    expected = {f"{name}.{leaf}": tensor for leaf, tensor in placeholders.items()}

    def load(*_: object) -> None:
        tensors = read(expected)
        module.load_state_dict({leaf: tensors[f"{name}.{leaf}"] for leaf in placeholders}, assign=True)

    def release(*_: object) -> None:
        module.load_state_dict(placeholders, assign=True)

    module.register_forward_pre_hook(load)
    module.register_forward_hook(release, always_call=True)
