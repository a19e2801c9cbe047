"""The judge of the suite: a detector of things, their colours and the background, trained apart from `sketch`.

It sees drawn scenes only, blurred, noisy and brightened so that it also reads a picture that is a little soft, and
knows nothing of the model that it judges. Centres of things are found as points (Zhou et al. 2019, 1904.07850), on a
map for each thing. `python -m training.fit.evaluator` fits it; `score` prints its own errors beside every score.

Dimension key: B batch, N things, D dyes and none, G backgrounds and the open one; Y and X rows and columns of the map.
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
from training.data.art import DYES
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import THINGS

#: Side of the pictures that it reads, and pixels per side of a cell of its maps, which is one of a square canvas.
SIDE_PX, CELL_PX = 192, 16
WIDTHS = (48, 96, 128)
#: A centre counts from here on, in [0, 1].
THRESHOLD = 0.35
WEIGHTS = "detector.safetensors"

_DYES = (None, *DYES)
_GROUNDS = (*BACKGROUNDS, OPEN)


@dataclass(frozen=True, slots=True)
class Found:
    """A thing in a picture."""

    icon: str
    #: None: its usual colour.
    dye: str | None
    #: Centre, fractions of width and height.
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What a picture shows."""

    background: str
    things: tuple[Found, ...]


class Detector(nn.Module):
    """A small residual network with a map of centres per thing, of colours, and one verdict on the background."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.stem = nn.Conv2d(3 * 16, first, 3, padding=1)
        self.fine = nn.Sequential(ResnetBlock(first, first, 16), ResnetBlock(first, second, 16))
        self.middle = nn.Sequential(ResnetBlock(second, second, 16), ResnetBlock(second, third, 16))
        self.coarse = nn.Sequential(*(ResnetBlock(third, third, 16) for _ in range(2)))
        self.wide = nn.Sequential(*(ResnetBlock(third, third, 16) for _ in range(2)))
        self.join = ResnetBlock(2 * third, third, 16)
        self.centres = nn.Conv2d(third, len(THINGS), 1)
        self.dyes = nn.Conv2d(third, len(_DYES), 1)
        self.ground = nn.Linear(2 * third, len(_GROUNDS))
        nn.init.constant_(self.centres.bias, -5.0)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B, 3, SIDE_PX, SIDE_PX) in [-1, 1] -> centres (B, N, Y, X), dyes (B, D, Y, X), grounds (B, G); all
        logits.
        """
        x = self.fine(self.stem(F.pixel_unshuffle(pixels, 4)))
        x = self.coarse(F.avg_pool2d(self.middle(F.avg_pool2d(x, 2)), 2))
        wide = F.interpolate(self.wide(F.avg_pool2d(x, 2)), scale_factor=2.0, mode="nearest")
        x = self.join(torch.cat((x, wide), dim=1))
        summary = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)
        return self.centres(x), self.dyes(x), self.ground(summary)

    @torch.no_grad()
    def look(self, picture: NDArray[np.uint8]) -> Sight:
        """Return what a square picture, uint8 (H, W, 3), shows."""
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = F.interpolate(pixels, (SIDE_PX, SIDE_PX), mode="area")
        centres, dyes, ground = self(pixels)
        heat = centres.sigmoid()[0]
        # What is most certain of a place and its neighbours, and of two things in one place the likelier.
        is_peak = (heat == F.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat > THRESHOLD)
        candidates = sorted(((float(heat[tuple(at)]), *at.tolist()) for at in is_peak.nonzero()), reverse=True)
        things: list[Found] = []
        taken: list[tuple[int, int]] = []
        for _, number, row, column in candidates:
            if any(abs(row - y) < 2 and abs(column - x) < 2 for y, x in taken):
                continue
            taken.append((row, column))
            dye = _DYES[int(dyes[0, :, row, column].argmax())]
            y, x = ((at + 0.5) * CELL_PX / SIDE_PX for at in (row, column))
            things.append(Found(THINGS[number].icon, dye, x, y))
        return Sight(_GROUNDS[int(ground[0].argmax())], tuple(things))


def weights_file() -> Path:
    """Return where the shipped detector's weights are."""
    return Path(str(files("training.evaluate") / WEIGHTS))


def load_detector() -> Detector:
    """Return the fitted detector, in float32."""
    detector = Detector()
    detector.load_state_dict({name: value.float() for name, value in load_file(weights_file()).items()})
    return detector.eval()
