"""`python -m allaprima.train.score`: the built-in model's score on the committed prompts, two seeds each.

Prints the judge's own error on true scenes first, since a score means little without it.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allaprima.engine.pipeline import Pipeline
from allaprima.request import ImageRequest
from allaprima.train.art import Art
from allaprima.train.suite import error_rate, score
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.model import open_model

TRUE_SCENES = 300


def main() -> None:
    """Score a model folder and print the table."""
    parser = argparse.ArgumentParser(prog="python -m allaprima.train.score", description=__doc__)
    parser.add_argument("--model", type=Path, default=sketch_folder(), help="model folder")
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    art = Art(options.art)
    background, thing = error_rate(art, TRUE_SCENES)
    print(f"the judge's own error on {TRUE_SCENES} true scenes: background {background:.1%}, thing {thing:.1%}")
    pipeline = Pipeline(open_model(options.model).load(), "cpu")

    def paint(prompt: str, seed: int) -> NDArray[np.uint8]:
        return pipeline.paint(ImageRequest(prompt, seed, SKETCH_ID, 512, 512, options.steps))[0]

    result = score(paint, art, options.seeds)
    print(f"revision {pipeline.model.revision}, {options.steps} steps, seeds {options.seeds}")
    print(f"background right {result.background:.1%}, thing right {result.thing:.1%}, both {result.both:.1%}")


if __name__ == "__main__":
    main()
