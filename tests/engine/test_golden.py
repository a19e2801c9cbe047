"""The shipped weights generate the golden images; `tools/golden.py` writes new ones when the weights change."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.networks import Model

FOLDER = Path(__file__).parent / "golden"
PROMPTS = (FOLDER / "prompts.txt").read_text().splitlines()
#: Side of the generated images in pixels.
SIDE = 512
#: Largest mean difference to a golden image, in levels of 255. Other machines and precisions round differently;
#: another seed differs by eight times as much.
MAX_DIFFERENCE = 2.0


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_shipped_weights_generate_golden_images(sketch: Model, number: int):
    golden = Image.open(FOLDER / f"{number}.png").convert("RGB")

    (pixels,) = Pipeline(sketch, "cpu").generate(
        GenerationRequest(prompt=PROMPTS[number], seed=number, model=SKETCH_ID, width=SIDE, height=SIDE)
    )

    generated = Image.fromarray(pixels).resize(golden.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(generated, np.float32) - np.asarray(golden, np.float32))
    assert difference.mean() < MAX_DIFFERENCE
