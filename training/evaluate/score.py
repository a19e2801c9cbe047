"""`python -m training.evaluate.score`: print the built-in model's score on the benchmark, by category.

The evaluator's own errors on drawn scenes are printed first, since they limit the precision of a score.
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
from training.data.art import Art
from training.data.rendering import SQUARE
from training.data.scenes import EVALUATOR_TEST_FROM, VALIDATION_FROM, Scene, compose, draw_pixels
from training.evaluate.benchmark import (
    CATEGORIES,
    HELD_OUT,
    SEEN,
    BenchmarkPrompt,
    benchmark_prompts,
    is_right,
    overall,
    score,
    seed_difference,
)
from training.evaluate.evaluator import INPUT_PX, Detections, load_evaluator
from training.evaluate.psnr import score_psnr

#: Number of drawn scenes on which the evaluator's errors are measured.
TEST_SCENES = 1000
#: PSNR in dB that the autoencoder should reach.
PSNR_TARGET = 32.0
#: Number of validation scenes on which the autoencoder's error is measured; with 240 the result was 0.3 dB higher.
VALIDATION_SCENES = 1000
#: Side in pixels of generated images and of drawn scenes.
IMAGE_PX = 512
#: The share of right images that each category should reach.
TARGETS = {
    "single thing": 0.93,
    "two things": 0.85,
    "background": 0.99,
    "counting": 0.70,
    "position": 0.80,
    "colour": 0.85,
}
OVERALL_TARGET, HELD_OUT_GAP = 0.85, 0.05


def evaluator_errors(detect: Callable[[NDArray[np.uint8]], Detections], art: Art, count: int) -> tuple[float, float]:
    """Return the shares of false negatives and of false positives of the evaluator on `count` drawn scenes.

    A false negative is a scene whose detections do not match its own description. A false positive is a scene whose
    detections match an altered description.
    """
    false_negatives = false_positives = 0
    for seed in range(EVALUATOR_TEST_FROM, EVALUATOR_TEST_FROM + count):
        scene = compose(seed, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        detections = detect(draw_pixels(scene, art))
        false_negatives += not is_right(prompt_for(scene), detections)
        false_positives += is_right(prompt_for(altered(scene, seed)), detections)
    return false_negatives / count, false_positives / count


def prompt_for(scene: Scene) -> BenchmarkPrompt:
    """Return a prompt whose required content is the complete content of a scene."""
    return BenchmarkPrompt("true", "", scene.background, scene.subjects, scene.relation, checks_background=True)


def altered(scene: Scene, seed: int) -> Scene:
    """Return a scene with another background, or with other subjects of which at least one has another class.

    seed: determines the change.
    """
    while True:
        seed += TEST_SCENES
        other = compose(seed, IMAGE_PX, IMAGE_PX, allow_held_out=True)
        if seed % 2 and other.background != scene.background:
            return Scene(other.background, scene.subjects, scene.relation, IMAGE_PX, IMAGE_PX, scene.free_factors)
        if not {one.icon for one in other.subjects} <= {one.icon for one in scene.subjects}:
            return Scene(scene.background, other.subjects, other.relation, IMAGE_PX, IMAGE_PX, scene.free_factors)


def autoencoder_psnr(autoencoder: Autoencoder, art: Art, count: int = VALIDATION_SCENES) -> float:
    """Return the mean PSNR in dB of `count` encoded and decoded validation scenes, which no fit uses."""
    scenes = (compose(seed, *SQUARE) for seed in range(VALIDATION_FROM, VALIDATION_FROM + count))
    images = (torch.from_numpy(draw_pixels(scene, art)).permute(2, 0, 1)[None] for scene in scenes)
    return sum(score_psnr(autoencoder, image) for image in images) / count


def print_table(shares: dict[str, float], counts: dict[str, int]) -> None:
    """Print the share of right images per category with its target, and the overall score."""
    print(f"{'category':24}{'images':>10}{'right':>9}{'target':>9}")
    for category, share in shares.items():
        target = f"{TARGETS[category]:9.1%}" if category in TARGETS else ""
        print(f"{category:24}{counts[category]:10}{share:9.1%}{target}")
    if all(category in shares for category in CATEGORIES):
        print(f"{'overall':24}{'':10}{overall(shares):9.1%}{OVERALL_TARGET:9.1%}")
    if HELD_OUT in shares and SEEN in shares:
        print(f"{'seen minus held-out':24}{'':10}{shares[SEEN] - shares[HELD_OUT]:9.1%}{HELD_OUT_GAP:9.1%}")


def main() -> None:
    """Print the errors of the evaluator and the scores of a model folder."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate.score", description=__doc__)
    parser.add_argument("--model", type=Path, default=sketch_folder(), help="model folder")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--every", type=int, default=1, help="use only every N-th prompt")
    parser.add_argument(
        "--test-scenes", type=int, default=TEST_SCENES, help="number of scenes for the evaluator's errors"
    )
    options = parser.parse_args()
    detect, art, files = load_evaluator().detect, Art(options.art), open_model(options.model)
    false_negatives, false_positives = evaluator_errors(detect, art, options.test_scenes)
    sizes = f"{IMAGE_PX}x{IMAGE_PX}, resized to {INPUT_PX}x{INPUT_PX}"
    print(f"evaluator on {options.test_scenes} drawn scenes of {sizes}:")
    print(f"  false negatives {false_negatives:.1%}, false positives {false_positives:.1%}")
    psnr = autoencoder_psnr(files.load(precision=Precision.FP32).networks.autoencoder, art)
    print(f"autoencoder: {psnr:.2f} dB on {VALIDATION_SCENES} validation scenes, target {PSNR_TARGET:.0f} dB")
    pipeline = Pipeline(files.load(), "cpu")
    prompts = benchmark_prompts()[:: options.every]
    for steps in options.steps:
        print(f"revision {pipeline.model.revision}, steps {steps}, seeds {options.seeds}, {IMAGE_PX}x{IMAGE_PX}")
        generate = _generator(pipeline, steps)
        shares = score(generate, detect, prompts, options.seeds)
        print_table(shares, _counts(prompts, options.seeds))
        if len(options.seeds) > 1:
            difference = seed_difference(generate, prompts[::10], options.seeds)
            print(f"images of one prompt with two seeds differ by {difference:.1f} of 255 levels on average")


def _generator(pipeline: Pipeline, steps: int) -> Callable[[str, int], NDArray[np.uint8]]:
    def generate(prompt: str, seed: int) -> NDArray[np.uint8]:
        return pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=IMAGE_PX, height=IMAGE_PX, steps=steps)
        )[0]

    return generate


def _counts(prompts: Sequence[BenchmarkPrompt], seeds: Sequence[int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.category] = counts.get(prompt.category, 0) + len(seeds)
    return counts


if __name__ == "__main__":
    main()
