"""Fit the evaluator."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from training.data.art import Art
from training.data.objects import THINGS
from training.data.scenes import JUDGE_FITTED_FROM, Scene, compose, draw_pixels, grid, placed
from training.evaluate.evaluator import _DYES, _GROUNDS, CELL_PX, SIDE_PX, Detector, weights_file
from training.fit.loop import Fit
from training.fit.optimizers import flatten_kernels, make_optimizers, restore_kernels

BATCH = 32
MUON_RATE, RATE = 0.02, 1.5e-3
_NUMBER = {thing.icon: i for i, thing in enumerate(THINGS)}


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
    parser = argparse.ArgumentParser(prog="python -m training.fit.evaluator", description=__doc__)
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
