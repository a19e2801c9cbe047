"""How many of 500 pictures by the built-in model the safety checker would withhold at the default threshold.

The model has seen nothing but flat art of animals, food and things, so every hit is a false one.
"""

import argparse

import torch

from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety import SafetyChecker
from allaprima.request import ImageRequest
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.model import open_model
from training.evaluate.benchmark import benchmark_prompts


@torch.inference_mode()
def main() -> None:
    """Paint, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    checker = SafetyChecker.load()
    asked = benchmark_prompts()
    scores = []
    for number in range(options.pictures):
        prompt = asked[number % len(asked)].text
        (pixels,) = pipeline.paint(ImageRequest(prompt, number // len(asked), SKETCH_ID, 512, 512))
        scores.append(checker.score(torch.from_numpy(pixels)))
    flagged = sum(score >= DEFAULT_SAFETY_THRESHOLD for score in scores)
    print(f"{flagged} of {len(scores)} flagged at {DEFAULT_SAFETY_THRESHOLD}; highest score {max(scores):.3f}")


if __name__ == "__main__":
    main()
