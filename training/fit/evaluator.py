"""`python -m training.fit.evaluator`: fit the evaluator of the benchmark to drawn scenes."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from training.data.art import Art
from training.data.objects import OBJECTS
from training.data.scenes import EVALUATOR_TRAIN_FROM, Scene, cell_grid, compose, draw_pixels, place_objects
from training.evaluate.evaluator import BACKGROUND_CLASSES, CELL_PX, INPUT_PX, VARIANT_CLASSES, Evaluator, weights_file
from training.fit.loop import Fit
from training.fit.optimizers import flatten_kernels, make_optimizers, restore_kernels

BATCH = 32
MUON_RATE, RATE = 0.02, 1.5e-3
_CLASSES = {obj.icon: i for i, obj in enumerate(OBJECTS)}


@dataclass(frozen=True, slots=True)
class LabelledScenes:
    """Scenes with the target outputs of the evaluator."""

    #: (number of scenes, 3, INPUT_PX, INPUT_PX), uint8.
    pixels: Tensor
    #: For each object: scene, object class, variant, row and column of its centre in the map:
    #: (number of objects, 5), int64.
    centres: Tensor
    #: Indices of the backgrounds: (number of scenes,), int64.
    backgrounds: Tensor


def labelled_scenes(seeds: range, art: Art) -> LabelledScenes:
    """Draw the scenes of a range of seeds for the evaluator, including held-out combinations."""
    scenes = [compose(seed, INPUT_PX, INPUT_PX, allow_held_out=True) for seed in seeds]
    pixels = torch.empty(len(scenes), 3, INPUT_PX, INPUT_PX, dtype=torch.uint8)
    for target, scene in zip(pixels, scenes, strict=True):
        target.copy_(torch.from_numpy(draw_pixels(scene, art)).permute(2, 0, 1))
    centres = torch.tensor([(i, *centre) for i, scene in enumerate(scenes) for centre in _centres(scene)])
    backgrounds = torch.tensor([BACKGROUND_CLASSES.index(scene.background) for scene in scenes])
    return LabelledScenes(pixels, centres, backgrounds)


def _centres(scene: Scene) -> list[tuple[int, int, int, int]]:
    rows, columns = cell_grid(scene)
    size = INPUT_PX // CELL_PX
    return [
        (
            _CLASSES[one.subject.icon],
            VARIANT_CLASSES.index(one.subject.variant),
            int((one.box.row + one.box.cells / 2) / rows * size),
            int((one.box.column + one.box.cells / 2) / columns * size),
        )
        for one in place_objects(scene)
    ]


def degrade(pixels: Tensor) -> Tensor:
    """Return images with the defects of generated images: blur, noise and changes of light, of random strength.

    pixels: (B, 3, INPUT_PX, INPUT_PX) in [-1, 1]. Returns the same shape.
    """
    if torch.rand(()) < 0.6:
        scale = float(torch.empty(()).uniform_(0.25, 0.9))
        small = F.interpolate(pixels, scale_factor=scale, mode="area")
        pixels = F.interpolate(small, pixels.shape[2:], mode="bilinear")
    deviation = 0.12 * torch.rand(len(pixels), 1, 1, 1)
    coarse = F.interpolate(torch.randn(len(pixels), 3, INPUT_PX // 4, INPUT_PX // 4), scale_factor=4.0, mode="bilinear")
    light = 0.08 * torch.randn(len(pixels), 3, 1, 1)
    return pixels + light + deviation * (coarse + 0.5 * torch.randn_like(pixels))


def evaluator_loss(evaluator: Evaluator, pixels: Tensor, centres: Tensor, backgrounds: Tensor) -> Tensor:
    """Return the focal loss of the centres plus the cross-entropies of the variants and of the backgrounds: a scalar.

    pixels: (B, 3, INPUT_PX, INPUT_PX) in [-1, 1]. centres, backgrounds: as in `LabelledScenes`.
    """
    with torch.autocast("cpu", torch.bfloat16):
        heat, variants, background = (out.float() for out in evaluator(pixels))
    image, obj, variant, row, column = centres.unbind(1)
    target = torch.zeros_like(heat)
    target[image, obj, row, column] = 1.0
    # A detection next to a centre has a tenth of the weight of other false detections.
    neighbours = F.max_pool2d(target, 3, 1, 1) - target
    probability = heat.sigmoid()
    false_negatives = target * (1 - probability) ** 2 * F.logsigmoid(heat)
    false_positives = (1 - target) * (1 - 0.9 * neighbours) * probability**2 * F.logsigmoid(-heat)
    focal = -(false_negatives + false_positives).sum() / len(centres)
    return (
        focal
        + F.cross_entropy(variants[image, :, row, column], variant)
        + 0.5 * F.cross_entropy(background, backgrounds)
    )


def fit_evaluator(folder: Path, art: Art, minutes: float, scenes: int) -> Evaluator:
    """Fit a new evaluator for `minutes`, summed over all runs, and return it. folder: of the checkpoints.

    scenes: number of scenes to draw as training data.
    """
    torch.manual_seed(5)
    evaluator = Evaluator()
    matrices = flatten_kernels(evaluator, (evaluator.stem, evaluator.centres, evaluator.dyes))
    optimizers = make_optimizers(evaluator, matrices, MUON_RATE, RATE)
    fit = Fit(folder / "detector.ckpt", {"detector": evaluator}, optimizers, minutes, seed=5)
    labelled = labelled_scenes(range(EVALUATOR_TRAIN_FROM, EVALUATOR_TRAIN_FROM + scenes), art)
    first = torch.searchsorted(labelled.centres[:, 0].contiguous(), torch.arange(scenes + 1))
    for step in fit.steps():
        picks = torch.randint(scenes, (BATCH,))
        centres = torch.cat([labelled.centres[first[i] : first[i + 1]] for i in picks.tolist()])
        centres[:, 0] = torch.repeat_interleave(torch.arange(BATCH), first[picks + 1] - first[picks])
        pixels = degrade(labelled.pixels[picks].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        loss = evaluator_loss(evaluator, pixels, centres, labelled.backgrounds[picks])
        fit.descend(loss)
        if step % 50 == 0:
            print(f"evaluator {fit.progress:6.1%} step {step} loss {loss.item():.4f}", flush=True)
    restore_kernels(evaluator)
    return evaluator


def main() -> None:
    """Fit the evaluator and write its weights."""
    parser = argparse.ArgumentParser(prog="python -m training.fit.evaluator", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="folder of checkpoints")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=weights_file(), help="file to write")
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--scenes", type=int, default=30000, help="number of scenes in the training data")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    evaluator = fit_evaluator(options.work, Art(options.art), options.minutes, options.scenes)
    save_file({name: value.bfloat16().contiguous() for name, value in evaluator.state_dict().items()}, options.out)


if __name__ == "__main__":
    main()
