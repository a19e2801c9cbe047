"""Does painting strangers' requests together pay? One step of the built-in model for some pictures, one by one or not.

Prints the ratio, medians of interleaved runs, and whether the pictures' bits stay the same.
"""

import datetime as dt
import os
import statistics
import time

import torch
from torch import Tensor

from allaprima.engine.pipeline import Pipeline
from allaprima.flux import no_check
from allaprima.flux.latents import image_ids, text_ids
from allaprima.request import ImageRequest
from allaprima.weights.catalog import sketch_folder
from allaprima.weights.model import open_model
from service import cpu_name

BATCHES = (2, 4, 8)
RUNS = 40


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    config, transformer = pipeline.model.config, pipeline.model.networks.transformer
    conditioning = pipeline.encode("a red apple", no_check)
    row = pipeline._modulate(conditioning, 4, no_check).row(0)  # noqa: SLF001 - what a step is given
    txt = conditioning.embeddings.txt
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print(f"\nsketch in {pipeline.model.precision}, 512x512, one step\n")
    print("| pictures | ms, one by one | ms, together | ratio | same bits |\n|---|---|---|---|---|")
    for batch in BATCHES:
        canvases = [pipeline.prepare(ImageRequest("a red apple", seed, "sketch", 512, 512)) for seed in range(batch)]
        images = [canvas.images[0] for canvas in canvases]
        rows, columns = canvases[0].rows, canvases[0].columns
        ids = image_ids(rows, columns)
        txt_ids = text_ids(txt.shape[1], config.text_anchors, rows, columns)

        def apart(images: list[Tensor] = images, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            return torch.cat([transformer.velocity(image, ids, txt, txt_ids, row, no_check) for image in images])

        def together(images: list[Tensor] = images, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            wide = txt.expand(len(images), -1, -1)
            return transformer.velocity(torch.cat(images), ids, wide, txt_ids, row, no_check)

        is_same = bool(torch.equal(apart(), together()))
        timed: tuple[list[float], list[float]] = ([], [])
        for _ in range(RUNS):
            for way, found in zip((apart, together), timed, strict=True):
                began = time.perf_counter()
                way()
                found.append(1000 * (time.perf_counter() - began))
        one_by_one, at_once = (statistics.median(found) for found in timed)
        print(f"| {batch} | {one_by_one:.1f} | {at_once:.1f} | {one_by_one / at_once:.2f} | {is_same} |")


if __name__ == "__main__":
    main()
