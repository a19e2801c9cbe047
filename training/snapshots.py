"""Snapshots of a flow while it is fitted: a sheet of pictures, and the suite's score on a part of the prompts.

Each exports the networks as a model folder and paints with the engine, so what is seen is what would be shipped.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from training.detector import Sight
from training.suite import asks, score

#: One prompt in so many is painted; of those, so many come on the sheet.
EVERY, SHOWN, COLUMNS = 15, 48, 8
#: Side in pixels of what is painted, and of a picture on the sheet.
SIDE, SMALL = 512, 192


def take_snapshot(
    export: Callable[[Path], None],
    look: Callable[[NDArray[np.uint8]], Sight],
    folder: Path,
    step: int,
    device: torch.device,
) -> None:
    """Export the model into `folder`, print its score on a part of the suite and write a sheet beside it.

    export: writes the model into a folder of its own. look: the judge. device: where it paints.
    """
    model = folder / "snapshot"
    export(model)
    pipeline = Pipeline(open_model(model).load(device.type), device.type)
    painted: list[NDArray[np.uint8]] = []

    def paint(prompt: str, seed: int) -> NDArray[np.uint8]:
        (picture,) = pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=SIDE, height=SIDE)
        )
        painted.append(picture)
        return picture

    shares = score(paint, look, asks()[::EVERY], (0,))
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"snapshot at step {step}: {told}", flush=True)
    sheet(painted[:SHOWN]).save(folder / f"sheet-{step:06}.png")


def sheet(pictures: list[NDArray[np.uint8]]) -> Image.Image:
    """Return pictures side by side, small."""
    rows = -(-len(pictures) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * SMALL, rows * SMALL))
    for i, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize((SMALL, SMALL), Image.Resampling.LANCZOS)
        whole.paste(small, (i % COLUMNS * SMALL, i // COLUMNS * SMALL))
    return whole
