"""The shipped weights: benchmark score, and PSNR of the autoencoder."""

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from training.evaluate.benchmark import ALL_CATEGORIES, benchmark_prompts, score
from training.evaluate.evaluator import load_evaluator
from training.evaluate.score import IMAGE_PX, autoencoder_psnr

#: Every twelfth prompt is used, with one seed.
EVERY = 12
#: Least share of right images: the share in the whole benchmark (docs/explanation/sketch.md) minus the deviation of
#: 8 prompts.
LEAST = dict.fromkeys(ALL_CATEGORIES, 0.8)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(open_model(sketch_folder()).load(), "cpu")


@pytest.fixture(scope="module")
def shares(pipeline: Pipeline) -> dict[str, float]:
    def generate(prompt: str, seed: int):
        return pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=IMAGE_PX, height=IMAGE_PX)
        )[0]

    return score(generate, load_evaluator().detect, benchmark_prompts()[::EVERY], (0,))


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_shipped_model_reaches_minimum_score(shares: dict[str, float], category: str):
    assert shares[category] >= LEAST[category]


def test_shipped_autoencoder_reconstructs_unseen_scenes(art):
    networks = open_model(sketch_folder()).load(precision=Precision.FP32).networks

    assert autoencoder_psnr(networks.autoencoder, art, count=4) > 31
