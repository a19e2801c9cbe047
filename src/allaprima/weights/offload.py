"""Weight streaming: linears whose weights are memory-mapped for each forward pass and released after it.

Released weights stay in the operating system's page cache while memory is free, so that loading them again is cheap;
under memory pressure the system reclaims those pages, since they belong to no process.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from allaprima.kernels import QuantizedLinear
from allaprima.weights.quantize import is_modulation, is_text

#: Returns tensors by name, given tensors of the expected shapes and dtypes.
ReadTensors = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def is_streamed(name: str, module: nn.Module, device: str, *, stream_text: bool) -> bool:
    """Whether a module of `Networks` is streamed: on a CPU the modulations' linears, and T5's if `stream_text`."""
    is_candidate = is_modulation(name) or (stream_text and is_text(name))
    return device == "cpu" and is_candidate and isinstance(module, QuantizedLinear)


def stream_weights(module: nn.Module, name: str, read: ReadTensors) -> None:
    """Load a module's weights before each forward pass and release them after it, also when the pass raises.

    module: on the meta device. name: the module's name in `Networks`, a prefix of its tensors' names for `read`.
    """
    placeholders = dict(module.state_dict())
    wanted = {f"{name}.{leaf}": tensor for leaf, tensor in placeholders.items()}

    def load(*_: object) -> None:
        tensors = read(wanted)
        module.load_state_dict({leaf: tensors[f"{name}.{leaf}"] for leaf in placeholders}, assign=True)

    def release(*_: object) -> None:
        module.load_state_dict(placeholders, assign=True)

    module.register_forward_pre_hook(load)
    module.register_forward_hook(release, always_call=True)
