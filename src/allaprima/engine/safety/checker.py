"""The safety checker: the probability that a finished image is pornographic."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from allaprima.engine.safety.opennsfw import NSFW_CLASS, OpenNSFW, preprocess
from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.flux import meta_device

#: The shipped weights, in this folder.
WEIGHTS_FILE = "opennsfw.safetensors"


class SafetyChecker:
    """Scores one image at a time, on the CPU. The score depends on the image alone, not on concurrent work.

    Several threads may share a checker.
    """

    def __init__(self, network: OpenNSFW) -> None:
        self.network = network

    @classmethod
    def load(cls, path: Path | None = None) -> "SafetyChecker":
        """Return a checker with the weights at `path`, or the shipped ones. The global random state does not change.

        Raises `WeightsMissing` when the file does not exist and `WeightsCorrupt` when its tensors are not this
        network's or are not finite. Both messages name the file.
        """
        if path is not None:
            return cls(_read_network(path))
        with resources.as_file(resources.files("allaprima.engine.safety") / WEIGHTS_FILE) as shipped:
            return cls(_read_network(shipped))

    @torch.inference_mode()
    def score(self, pixels: Tensor) -> float:
        """Return the probability, 0 to 1, that an image is pornographic.

        pixels: (H, W, 3), uint8, RGB, on the CPU, of any size. Raises ValueError for another shape or dtype.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels must be (H, W, 3) uint8, not {tuple(pixels.shape)} {pixels.dtype}")
        # The convolutions are faster on channels-last input.
        image = preprocess(pixels).to(memory_format=torch.channels_last)
        with _one_thread():
            return float(self.network(image)[0, NSFW_CLASS])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread in the context: the rounding of its sums depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _read_network(path: Path) -> OpenNSFW:
    """Return the network with the weights at `path`, converted to float32, in evaluation mode."""
    if not path.is_file():
        raise WeightsMissing(f"The safety checker's weights are missing: there is no file {path}.")
    try:
        state = {name: _channels_last(tensor.float()) for name, tensor in load_file(path).items()}
        with meta_device():  # allocates and initialises no weights; `load_state_dict` assigns them
            network = OpenNSFW()
        network.load_state_dict(state, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsCorrupt(f"The safety checker's weights at {path} cannot be used: {error}") from error
    # NaN weights give NaN scores. A NaN score reaches no threshold, so no image would be withheld.
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise WeightsCorrupt(f"The safety checker's weights at {path} hold values that are not finite.")
    return network.requires_grad_(requires_grad=False).eval()
