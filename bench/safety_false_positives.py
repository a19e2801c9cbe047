"""How many of 500 images by the built-in model the safety checker flags at the default threshold.

The model was trained on flat art of animals, food and objects alone, so every flagged image is a false positive.
"""

import argparse

import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from training.evaluate.benchmark import benchmark_prompts


@torch.inference_mode()
def main() -> None:
    """Generate, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    checker = SafetyChecker.load()
    prompts = benchmark_prompts()
    scores = []
    for number in range(options.images):
        prompt = prompts[number % len(prompts)].text
        (pixels,) = pipeline.generate(
            GenerationRequest(prompt=prompt, seed=number // len(prompts), model=SKETCH_ID, width=512, height=512)
        )
        scores.append(checker.score(torch.from_numpy(pixels)))
    flagged = sum(score >= DEFAULT_SAFETY_THRESHOLD for score in scores)
    print(f"{flagged} of {len(scores)} flagged at {DEFAULT_SAFETY_THRESHOLD}; highest score {max(scores):.3f}")


if __name__ == "__main__":
    main()
