"""`python -m training.score`: the built-in model's score on the suite, by category.

The judge's own error on true scenes is printed first, since a score means little without it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.flux import Autoencoder
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from training.art import Art
from training.autoencoder import score_psnr
from training.detector import SIDE_PX, Sight, load_detector
from training.pictures import SQUARE
from training.scenes import JUDGED_FROM, VALIDATION_FROM, Scene, compose, draw_pixels
from training.suite import CATEGORIES, HELD_OUT, SEEN, Ask, asks, difference, is_right, overall, score

#: True scenes that the judge is measured on.
TRUE_SCENES = 1000
#: What is asked of the autoencoder in dB.
PSNR_TARGET = 32.0
#: Scenes that no fit has seen, on which the autoencoder is measured; 240 of them alone said 0.3 dB more.
UNSEEN_SCENES = 1000
#: Side in pixels of what is painted and of true scenes.
SIDE = 512
#: What is asked for of each category, the least share that is right.
TARGETS = {
    "single thing": 0.93,
    "two things": 0.85,
    "background": 0.99,
    "counting": 0.70,
    "position": 0.80,
    "colour": 0.85,
}
OVERALL_TARGET, HELD_OUT_GAP = 0.85, 0.05


def judge_errors(look: Callable[[NDArray[np.uint8]], Sight], art: Art, count: int) -> tuple[float, float]:
    """Return the shares of true scenes that the judge says are wrong, and of scenes that show something else in one
    respect than what is asked for that it says are right.
    """
    refused = passed = 0
    for number in range(JUDGED_FROM, JUDGED_FROM + count):
        scene = compose(number, SIDE, SIDE, may_be_held_out=True)
        sight = look(draw_pixels(scene, art))
        refused += not is_right(asking(scene), sight)
        passed += is_right(asking(another(scene, number)), sight)
    return refused / count, passed / count


def asking(scene: Scene) -> Ask:
    """Return what would ask for all that a scene shows."""
    return Ask("true", "", scene.background, scene.subjects, scene.relation, judges_background=True)


def another(scene: Scene, number: int) -> Scene:
    """Return a scene that differs in its background, or shows a thing that this one does not."""
    while True:
        number += TRUE_SCENES
        other = compose(number, SIDE, SIDE, may_be_held_out=True)
        if number % 2 and other.background != scene.background:
            return Scene(other.background, scene.subjects, scene.relation, SIDE, SIDE, scene.leeway)
        if not {one.icon for one in other.subjects} <= {one.icon for one in scene.subjects}:
            return Scene(scene.background, other.subjects, other.relation, SIDE, SIDE, scene.leeway)


def autoencoder_psnr(autoencoder: Autoencoder, art: Art, count: int = UNSEEN_SCENES) -> float:
    """Return the peak signal-to-noise ratio in dB of encoding and decoding whole scenes that no fit has seen."""
    scenes = (compose(number, *SQUARE) for number in range(VALIDATION_FROM, VALIDATION_FROM + count))
    pictures = (torch.from_numpy(draw_pixels(scene, art)).permute(2, 0, 1)[None] for scene in scenes)
    return sum(score_psnr(autoencoder, picture) for picture in pictures) / count


def print_table(shares: dict[str, float], counts: dict[str, int]) -> None:
    """Print the shares beside their targets, and what they come to."""
    print(f"{'category':24}{'pictures':>10}{'right':>9}{'target':>9}")
    for category, share in shares.items():
        target = f"{TARGETS[category]:9.1%}" if category in TARGETS else ""
        print(f"{category:24}{counts[category]:10}{share:9.1%}{target}")
    if all(category in shares for category in CATEGORIES):
        print(f"{'overall':24}{'':10}{overall(shares):9.1%}{OVERALL_TARGET:9.1%}")
    if HELD_OUT in shares and SEEN in shares:
        print(f"{'held out below seen by':24}{'':10}{shares[SEEN] - shares[HELD_OUT]:9.1%}{HELD_OUT_GAP:9.1%}")


def main() -> None:
    """Score a model folder and print the table."""
    parser = argparse.ArgumentParser(prog="python -m training.score", description=__doc__)
    parser.add_argument("--model", type=Path, default=sketch_folder(), help="model folder")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--every", type=int, default=1, help="ask only every so many-th prompt")
    parser.add_argument("--true-scenes", type=int, default=TRUE_SCENES)
    options = parser.parse_args()
    look, art, files = load_detector().look, Art(options.art), open_model(options.model)
    refused, passed = judge_errors(look, art, options.true_scenes)
    print(f"the judge's own errors on {options.true_scenes} true scenes of {SIDE}x{SIDE} at {SIDE_PX}x{SIDE_PX}:")
    print(f"  right ones refused {refused:.1%}, wrong ones passed {passed:.1%}")
    psnr = autoencoder_psnr(files.load(precision=Precision.FP32).networks.autoencoder, art)
    print(f"autoencoder: {psnr:.2f} dB on {UNSEEN_SCENES} validation scenes, target {PSNR_TARGET:.0f} dB")
    pipeline = Pipeline(files.load(), "cpu")
    asked = asks()[:: options.every]
    for steps in options.steps:
        print(f"revision {pipeline.model.revision}, steps {steps}, seeds {options.seeds}, {SIDE}x{SIDE}")
        paint = _painter(pipeline, steps)
        shares = score(paint, look, asked, options.seeds)
        print_table(shares, _counts(asked, options.seeds))
        if len(options.seeds) > 1:
            apart = difference(paint, asked[::10], options.seeds)
            print(f"two seeds of one prompt differ by {apart:.1f} of 255 levels in the mean")


def _painter(pipeline: Pipeline, steps: int) -> Callable[[str, int], NDArray[np.uint8]]:
    def paint(prompt: str, seed: int) -> NDArray[np.uint8]:
        return pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=SIDE, height=SIDE, steps=steps)
        )[0]

    return paint


def _counts(asked: Sequence[Ask], seeds: Sequence[int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ask in asked:
        counts[ask.category] = counts.get(ask.category, 0) + len(seeds)
    return counts


if __name__ == "__main__":
    main()
