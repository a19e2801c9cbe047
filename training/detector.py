"""The judge of the suite: a detector of things, their colours and the background, trained apart from `sketch`.

It sees drawn scenes only, blurred, noisy and brightened so that it also reads a picture that is a little soft, and
knows nothing of the model that it judges. Centres of things are found as points (Zhou et al. 2019, 1904.07850), on a
map for each thing. `python -m training.detector` fits it; `score` prints its own errors beside every score.

Dimension key: B batch, N things, D dyes and none, G backgrounds and the open one; Y and X rows and columns of the map.
"""

import argparse
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux.autoencoder import ResnetBlock
from training.art import DYES, Art
from training.fit import Fit
from training.optimizers import flatten_kernels, make_optimizers, restore_kernels
from training.places import BACKGROUNDS, OPEN
from training.scenes import JUDGE_FITTED_FROM, Scene, compose, draw_pixels, grid, placed
from training.things import THINGS

#: Side of the pictures that it reads, and pixels per side of a cell of its maps, which is one of a square canvas.
SIDE_PX, CELL_PX = 192, 16
WIDTHS = (48, 96, 128)
BATCH = 32
MUON_RATE, RATE = 0.02, 1.5e-3
#: A centre counts from here on, in [0, 1].
THRESHOLD = 0.35
WEIGHTS = "detector.safetensors"

_NUMBER = {thing.icon: i for i, thing in enumerate(THINGS)}
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
    return Path(str(files("training") / WEIGHTS))


def load_detector() -> Detector:
    """Return the fitted detector, in float32."""
    detector = Detector()
    detector.load_state_dict({name: value.float() for name, value in load_file(weights_file()).items()})
    return detector.eval()


# Fitting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Truth:
    """Scenes and what a detector has to say of them."""

    #: uint8, (number of scenes, 3, SIDE_PX, SIDE_PX).
    pixels: Tensor
    #: Rows of (scene, thing, dye, row, column) of the map, int64.
    centres: Tensor
    #: int64, (number of scenes,).
    grounds: Tensor


def true_scenes(seeds: range, art: Art) -> Truth:
    """Draw scenes, held-out combinations among them, as the detector reads them."""
    scenes = [compose(seed, SIDE_PX, SIDE_PX, may_be_held_out=True) for seed in seeds]
    pixels = torch.empty(len(scenes), 3, SIDE_PX, SIDE_PX, dtype=torch.uint8)
    for place, scene in zip(pixels, scenes, strict=True):
        place.copy_(torch.from_numpy(draw_pixels(scene, art)).permute(2, 0, 1))
    centres = torch.tensor([(i, *centre) for i, scene in enumerate(scenes) for centre in _centres(scene)])
    grounds = torch.tensor([_GROUNDS.index(scene.background) for scene in scenes])
    return Truth(pixels, centres, grounds)


def _centres(scene: Scene) -> list[tuple[int, int, int, int]]:
    rows, columns = grid(scene)
    places = SIDE_PX // CELL_PX
    return [
        (
            _NUMBER[one.subject.icon],
            _DYES.index(one.subject.dye),
            int((one.box.row + one.box.cells / 2) / rows * places),
            int((one.box.column + one.box.cells / 2) / columns * places),
        )
        for one in placed(scene)
    ]


def softened(pixels: Tensor) -> Tensor:
    """Return pictures (B, 3, SIDE_PX, SIDE_PX) in [-1, 1] as a model might paint them: some blurred, noisy, lighter or
    darker.
    """
    if torch.rand(()) < 0.6:
        scale = float(torch.empty(()).uniform_(0.25, 0.9))
        small = F.interpolate(pixels, scale_factor=scale, mode="area")
        pixels = F.interpolate(small, pixels.shape[2:], mode="bilinear")
    deviation = 0.12 * torch.rand(len(pixels), 1, 1, 1)
    coarse = F.interpolate(torch.randn(len(pixels), 3, SIDE_PX // 4, SIDE_PX // 4), scale_factor=4.0, mode="bilinear")
    light = 0.08 * torch.randn(len(pixels), 3, 1, 1)
    return pixels + light + deviation * (coarse + 0.5 * torch.randn_like(pixels))


def detector_loss(detector: Detector, pixels: Tensor, centres: Tensor, grounds: Tensor) -> Tensor:
    """Return the focal loss of the centres and the cross entropies of colours and backgrounds. centres: rows of
    (picture, thing, dye, row, column).
    """
    with torch.autocast("cpu", torch.bfloat16):
        heat, dyes, ground = (out.float() for out in detector(pixels))
    picture, thing, dye, row, column = centres.unbind(1)
    target = torch.zeros_like(heat)
    target[picture, thing, row, column] = 1.0
    # Neighbours of a centre are hardly wrong.
    near = F.max_pool2d(target, 3, 1, 1) - target
    chance = heat.sigmoid()
    missed = target * (1 - chance) ** 2 * F.logsigmoid(heat)
    invented = (1 - target) * (1 - 0.9 * near) * chance**2 * F.logsigmoid(-heat)
    focal = -(missed + invented).sum() / len(centres)
    return focal + F.cross_entropy(dyes[picture, :, row, column], dye) + 0.5 * F.cross_entropy(ground, grounds)


def fit_detector(folder: Path, art: Art, minutes: float, scenes: int) -> Detector:
    """Fit for that many minutes (over all runs), with checkpoints in `folder`; return the fitted detector.

    scenes: how many are drawn up front.
    """
    torch.manual_seed(5)
    detector = Detector()
    matrices = flatten_kernels(detector, (detector.stem, detector.centres, detector.dyes))
    optimizers = make_optimizers(detector, matrices, MUON_RATE, RATE)
    fit = Fit(folder / "detector.ckpt", {"detector": detector}, optimizers, minutes, seed=5)
    truth = true_scenes(range(JUDGE_FITTED_FROM, JUDGE_FITTED_FROM + scenes), art)
    first = torch.searchsorted(truth.centres[:, 0].contiguous(), torch.arange(scenes + 1))
    for step in fit.steps():
        picks = torch.randint(scenes, (BATCH,))
        centres = torch.cat([truth.centres[first[i] : first[i + 1]] for i in picks.tolist()])
        centres[:, 0] = torch.repeat_interleave(torch.arange(BATCH), first[picks + 1] - first[picks])
        pixels = softened(truth.pixels[picks].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        loss = detector_loss(detector, pixels, centres, truth.grounds[picks])
        fit.descend(loss)
        if step % 50 == 0:
            print(f"detector {fit.share:6.1%} step {step} loss {loss.item():.4f}", flush=True)
    restore_kernels(detector)
    return detector


def main() -> None:
    """Fit the detector and write its weights."""
    parser = argparse.ArgumentParser(prog="python -m training.detector", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="folder of checkpoints")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=weights_file(), help="file to write")
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--scenes", type=int, default=30000, help="scenes that it is fitted to")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    detector = fit_detector(options.work, Art(options.art), options.minutes, options.scenes)
    save_file({name: value.bfloat16().contiguous() for name, value in detector.state_dict().items()}, options.out)


if __name__ == "__main__":
    main()
