"""The evaluator of the benchmark: a network that detects objects, their colours, and the background.

The evaluator is fitted independently of `sketch`, to drawn scenes with blur, noise and changes of light, so that it
also works on slightly soft images. It detects objects as centre points (Zhou et al. 2019, 1904.07850), with one map per
class. `python -m training.fit.evaluator` fits it. `score` prints the evaluator's own errors with every score.

Dimension key: B batch, N object classes, V colour variants (including the usual colour), G backgrounds (including the
open one), Y and X rows and columns of the maps.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux.autoencoder import ResnetBlock
from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import OBJECTS

#: Side in pixels of the network's input, and of a cell of its maps. A map has as many cells as a square canvas.
INPUT_PX, CELL_PX = 192, 16
WIDTHS = (48, 96, 128)
#: Least confidence of a detection, in [0, 1].
THRESHOLD = 0.35
WEIGHTS = "detector.safetensors"

VARIANT_CLASSES = (None, *COLOUR_VARIANTS)
BACKGROUND_CLASSES = (*BACKGROUNDS, OPEN)


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object that was detected in an image."""

    icon: str
    #: Colour variant; None: the usual colour.
    variant: str | None
    #: Centre, as fractions of width and height.
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Detections:
    """The detected background and objects of an image."""

    background: str
    objects: tuple[DetectedObject, ...]


class Evaluator(nn.Module):
    """A small residual network that predicts maps of object centres and of colour variants, and the background.

    The attribute names are those of the tensors in `detector.safetensors`.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.stem = nn.Conv2d(3 * 16, first, 3, padding=1)
        self.fine = nn.Sequential(ResnetBlock(first, first, 16), ResnetBlock(first, second, 16))
        self.middle = nn.Sequential(ResnetBlock(second, second, 16), ResnetBlock(second, third, 16))
        self.coarse = nn.Sequential(*(ResnetBlock(third, third, 16) for _ in range(2)))
        self.wide = nn.Sequential(*(ResnetBlock(third, third, 16) for _ in range(2)))
        self.join = ResnetBlock(2 * third, third, 16)
        self.centres = nn.Conv2d(third, len(OBJECTS), 1)
        self.dyes = nn.Conv2d(third, len(VARIANT_CLASSES), 1)
        self.ground = nn.Linear(2 * third, len(BACKGROUND_CLASSES))
        nn.init.constant_(self.centres.bias, -5.0)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of centres (B, N, Y, X), of variants (B, V, Y, X) and of the background (B, G).

        pixels: (B, 3, INPUT_PX, INPUT_PX) in [-1, 1].
        """
        x = self.fine(self.stem(F.pixel_unshuffle(pixels, 4)))
        x = self.coarse(F.avg_pool2d(self.middle(F.avg_pool2d(x, 2)), 2))
        wide = F.interpolate(self.wide(F.avg_pool2d(x, 2)), scale_factor=2.0, mode="nearest")
        x = self.join(torch.cat((x, wide), dim=1))
        summary = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)
        return self.centres(x), self.dyes(x), self.ground(summary)

    @torch.no_grad()
    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Detect the background and the objects of a square image, uint8 (H, W, 3)."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = F.interpolate(pixels, (INPUT_PX, INPUT_PX), mode="area")
        centres, variants, background = self(pixels)
        heat = centres.sigmoid()[0]
        # Detections are local maxima of the maps. Of two that are less than two cells apart, the more confident one
        # counts.
        is_peak = (heat == F.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat > THRESHOLD)
        candidates = sorted(((float(heat[tuple(at)]), *at.tolist()) for at in is_peak.nonzero()), reverse=True)
        objects: list[DetectedObject] = []
        taken: list[tuple[int, int]] = []
        for _, number, row, column in candidates:
            if any(abs(row - y) < 2 and abs(column - x) < 2 for y, x in taken):
                continue
            taken.append((row, column))
            variant = VARIANT_CLASSES[int(variants[0, :, row, column].argmax())]
            y, x = ((at + 0.5) * CELL_PX / INPUT_PX for at in (row, column))
            objects.append(DetectedObject(OBJECTS[number].icon, variant, x, y))
        return Detections(BACKGROUND_CLASSES[int(background[0].argmax())], tuple(objects))


def weights_file() -> Path:
    """Return the path of the fitted evaluator's weights."""
    return Path(str(files("training.evaluate") / WEIGHTS))


def load_evaluator() -> Evaluator:
    """Return the fitted evaluator, in float32, in evaluation mode."""
    evaluator = Evaluator()
    evaluator.load_state_dict({name: value.float() for name, value in load_file(weights_file()).items()})
    return evaluator.eval()
