"""Snapshots of the flow during its fit: a contact sheet of images, and the score on a part of the benchmark.

A snapshot exports the networks to a model folder and generates with the engine's pipeline, as the shipped model would.
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
from training.evaluate.benchmark import benchmark_prompts, score
from training.evaluate.evaluator import Detections

#: Step between the prompts that are used; number of images on the sheet and in a row.
EVERY, SHEET_IMAGES, COLUMNS = 15, 48, 8
#: Side in pixels of generated images, and of an image on the sheet.
IMAGE_PX, THUMBNAIL_PX = 512, 192


def take_snapshot(
    export: Callable[[Path], None],
    detect: Callable[[NDArray[np.uint8]], Detections],
    folder: Path,
    step: int,
    device: torch.device,
) -> None:
    """Export the model, print its score on a part of the benchmark, and write a contact sheet.

    export: writes the model to a folder. detect: `Evaluator.detect`. folder: where the model and the sheet are written.
    step: number of the step, for the file name. device: the device that generates.
    """
    model = folder / "snapshot"
    export(model)
    pipeline = Pipeline(open_model(model).load(device.type), device.type)
    generated: list[NDArray[np.uint8]] = []

    def generate(prompt: str, seed: int) -> NDArray[np.uint8]:
        (image,) = pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=IMAGE_PX, height=IMAGE_PX)
        )
        generated.append(image)
        return image

    shares = score(generate, detect, benchmark_prompts()[::EVERY], (0,))
    scores = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"snapshot at step {step}: {scores}", flush=True)
    contact_sheet(generated[:SHEET_IMAGES]).save(folder / f"sheet-{step:06}.png")


def contact_sheet(images: list[NDArray[np.uint8]]) -> Image.Image:
    """Return one image with all images, scaled down, in rows of `COLUMNS`."""
    rows = -(-len(images) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * THUMBNAIL_PX, rows * THUMBNAIL_PX))
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        whole.paste(small, (i % COLUMNS * THUMBNAIL_PX, i // COLUMNS * THUMBNAIL_PX))
    return whole
