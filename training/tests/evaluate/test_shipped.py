"""What the weights in the package are held to: a part of the suite, painted and judged as `make sketch-suite` does."""

import pytest

from allaprima.engine.pipeline import Pipeline
from allaprima.request import ImageRequest, Precision
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.model import open_model
from training.evaluate.benchmark import ALL_CATEGORIES, benchmark_prompts, score
from training.evaluate.evaluator import load_evaluator
from training.evaluate.score import SIDE, autoencoder_psnr

#: One prompt in so many is painted, with one seed.
EVERY = 6
#: The least share that is right: what the whole suite has (docs/sketch.md), less what 17 prompts may deviate by.
LEAST = dict.fromkeys(ALL_CATEGORIES, 0.8)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(open_model(sketch_folder()).load(), "cpu")


@pytest.fixture(scope="module")
def shares(pipeline: Pipeline) -> dict[str, float]:
    def paint(prompt: str, seed: int):
        return pipeline.paint(ImageRequest(prompt, seed, SKETCH_ID, SIDE, SIDE))[0]

    return score(paint, load_evaluator().detect, benchmark_prompts()[::EVERY], (0,))


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_the_shipped_weights_paint_what_is_asked(shares: dict[str, float], category: str):
    assert shares[category] >= LEAST[category]


def test_the_shipped_autoencoder_restores_scenes_that_it_was_not_fitted_to(art):
    networks = open_model(sketch_folder()).load(precision=Precision.FP32).networks

    assert autoencoder_psnr(networks.autoencoder, art, count=4) > 31
