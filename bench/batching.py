"""Strangers' requests together: in one batch, abreast, or one after another? What pays is built.

Three tables in Markdown, with machine and date, of medians of interleaved runs. About two minutes.

- A step of the built-in model for some pictures, in one batch or one by one, and whether the pictures' bits stay the
  same.
- Whole pictures of the built-in model (text, steps, decode, safety, PNG), one after another on all cores, or abreast
  with a core each; the same files.
- A call of FLUX.1's transformer, of fewer blocks, one after another on all cores, or abreast with a core each.
"""

import datetime as dt
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from allaprima.bootstrap import build_painter, open_models
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.progress import StepCallback
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.flux.latents import image_ids, text_ids
from allaprima.settings import EngineSettings
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from engines import PARTS, ours_int8
from service import cpu_name

BATCHES = (2, 4, 8)
RUNS = 40
PICTURES, ROUNDS = 16, 5
CALLS, FLUX_ROUNDS = 2, 5
REQUEST = GenerationRequest(prompt="a red apple", seed=1, model="allaprima/sketch", width=512, height=512)

#: Does the work of one number.
Work = Callable[[int], object]


def main() -> None:
    """Measure and print."""
    cores = torch.get_num_threads()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    batched_steps()
    print(f"\n| what | a second, one after another | a second, {cores} abreast | ratio |\n|---|---|---|---|")
    settings = EngineSettings()
    painter = build_painter(open_models(settings)[0], SafetyChecker.load(), settings)

    def picture(seed: int) -> bytes:
        return painter.paint(REQUEST.changed(seed=seed), never_cancelled, StepCallback()).images[0].data

    assert one_by_one(picture, PICTURES, cores)[1] == abreast(picture, PICTURES, cores)[1]
    compare("sketch, whole pictures at 512x512", picture, PICTURES, ROUNDS, cores)
    run = ours_int8(PARTS["transformer 512x512"])
    compare("FLUX.1's transformer in int8, 512x512, 6 of 57 blocks", lambda _: run(), CALLS, FLUX_ROUNDS, cores)


def compare(name: str, work: Work, count: int, rounds: int, cores: int) -> None:
    """Print how much is done a second, both ways, in turns."""
    ways = (one_by_one, abreast)
    seconds: tuple[list[float], list[float]] = ([], [])
    for way in ways:
        way(work, count, cores)
    for _ in range(rounds):
        for way, found in zip(ways, seconds, strict=True):
            found.append(way(work, count, cores)[0])
    alone, together = (count / statistics.median(found) for found in seconds)
    print(f"| {name} | {alone:.2f} | {together:.2f} | {together / alone:.2f} |", flush=True)


def one_by_one(work: Work, count: int, cores: int) -> tuple[float, list[object]]:
    """Do the work of each number, each on all cores; return the seconds and what came of it."""
    torch.set_num_threads(cores)
    began = time.perf_counter()
    made = [work(number) for number in range(count)]
    return time.perf_counter() - began, made


def abreast(work: Work, count: int, cores: int) -> tuple[float, list[object]]:
    """Do as many at a time as there are cores, each on one."""
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        began = time.perf_counter()
        made = list(threads.map(work, range(count)))
        return time.perf_counter() - began, made


@torch.inference_mode()
def batched_steps() -> None:
    """Print what a batch gains in a step."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    transformer = pipeline.model.networks.transformer
    conditioning = pipeline.encode("a red apple", never_cancelled)
    row = pipeline._modulate(conditioning, 4, never_cancelled).row(0)  # noqa: SLF001 - what a step is given
    txt = conditioning.embeddings.txt
    print(f"\nA step of sketch in {pipeline.model.precision}, 512x512\n")
    print("| pictures | ms, one by one | ms, in a batch | ratio | same bits |\n|---|---|---|---|---|")
    for batch in BATCHES:
        canvases = [pipeline.prepare(REQUEST.changed(seed=seed)) for seed in range(batch)]
        images = [canvas.images[0] for canvas in canvases]
        rows, columns = canvases[0].rows, canvases[0].columns
        ids, txt_ids = image_ids(rows, columns), text_ids(txt.shape[1])

        def apart(images: list[Tensor] = images, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            return torch.cat([transformer.velocity(image, ids, txt, txt_ids, row, never_cancelled) for image in images])

        def together(images: list[Tensor] = images, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            wide, wide_ids, wide_txt_ids = (one.expand(len(images), -1, -1) for one in (txt, ids, txt_ids))
            return transformer.velocity(torch.cat(images), wide_ids, wide, wide_txt_ids, row, never_cancelled)

        is_same = bool(torch.equal(apart(), together()))
        timed: tuple[list[float], list[float]] = ([], [])
        for _ in range(RUNS):
            for way, found in zip((apart, together), timed, strict=True):
                began = time.perf_counter()
                way()
                found.append(1000 * (time.perf_counter() - began))
        one_each, at_once = (statistics.median(found) for found in timed)
        print(f"| {batch} | {one_each:.1f} | {at_once:.1f} | {one_each / at_once:.2f} | {is_same} |", flush=True)


if __name__ == "__main__":
    main()
