"""The small pictures that the shipped weights are held to; `tools/golden.py` paints them anew with new weights."""

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
#: Side in pixels of what is painted.
PAINTED = 512
#: Levels of 255 by which a picture may differ from the kept one, in the mean. Other machines round otherwise, and
#: other precisions more so; another seed differs by eight times as much.
DISTANCE = 2.0


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_the_shipped_weights_paint_the_golden_pictures(sketch: Model, number: int):
    golden = Image.open(FOLDER / f"{number}.png").convert("RGB")

    (pixels,) = Pipeline(sketch, "cpu").paint(
        GenerationRequest(prompt=PROMPTS[number], seed=number, model=SKETCH_ID, width=PAINTED, height=PAINTED)
    )

    painted = Image.fromarray(pixels).resize(golden.size, Image.Resampling.BOX)
    gap = np.abs(np.asarray(painted, np.float32) - np.asarray(golden, np.float32))
    assert gap.mean() < DISTANCE


def test_eight_pictures_are_golden():
    assert len(PROMPTS) == 8
