"""Throughput of requests of several clients: in one batch, concurrently, or one after another.

Prints three tables in Markdown with machine and date: medians of interleaved runs. Takes about two minutes.

- A step of the built-in model for several images, in one batch or one by one, and whether the images' bits are equal.
- Whole images of the built-in model (text, steps, decode, safety, PNG), one after another on all cores, or
  concurrently on one core each; both give the same files.
- A call of FLUX.1's transformer with fewer blocks, one after another on all cores, or concurrently on one core each.
"""

import datetime as dt
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.progress import StepCallback
from allaprima.engine.build import build_generator
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.flux.latents import image_ids, text_ids
from allaprima.settings import EngineSettings
from allaprima.weights.open import open_model, open_models
from allaprima.weights.paths import sketch_folder
from engines import PARTS, ours_int8
from service import cpu_name

BATCHES = (2, 4, 8)
RUNS = 40
IMAGES, ROUNDS = 16, 5
CALLS, FLUX_ROUNDS = 2, 5
REQUEST = GenerationRequest(prompt="a red apple", seed=1, model="allaprima/sketch", width=512, height=512)

#: Runs one unit of work, given its number.
Work = Callable[[int], object]


def main() -> None:
    """Measure and print."""
    cores = torch.get_num_threads()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    batched_steps()
    print(f"\n| work | per second, one after another | per second, {cores} at a time | ratio |\n|---|---|---|---|")
    settings = EngineSettings()
    generator = build_generator(open_models(())[0], SafetyChecker.load(), settings)

    def image(seed: int) -> bytes:
        return generator.generate(REQUEST.changed(seed=seed), never_cancelled, StepCallback()).images[0].data

    assert sequential(image, IMAGES, cores)[1] == concurrent(image, IMAGES, cores)[1]
    compare("sketch, whole images of 512x512", image, IMAGES, ROUNDS, cores)
    run = ours_int8(PARTS["transformer 512x512"])
    compare("FLUX.1's transformer in int8, 512x512, 6 of 57 blocks", lambda _: run(), CALLS, FLUX_ROUNDS, cores)


def compare(name: str, work: Work, count: int, rounds: int, cores: int) -> None:
    """Print the throughput of both ways, measured alternately."""
    ways = (sequential, concurrent)
    seconds: tuple[list[float], list[float]] = ([], [])
    for way in ways:
        way(work, count, cores)
    for _ in range(rounds):
        for way, found in zip(ways, seconds, strict=True):
            found.append(way(work, count, cores)[0])
    one_by_one, at_once = (count / statistics.median(found) for found in seconds)
    print(f"| {name} | {one_by_one:.2f} | {at_once:.2f} | {at_once / one_by_one:.2f} |", flush=True)


def sequential(work: Work, count: int, cores: int) -> tuple[float, list[object]]:
    """Run the work of each number in turn, on all cores; return the seconds and the results."""
    torch.set_num_threads(cores)
    started = time.perf_counter()
    results = [work(number) for number in range(count)]
    return time.perf_counter() - started, results


def concurrent(work: Work, count: int, cores: int) -> tuple[float, list[object]]:
    """Run as many at a time as there are cores, on one core each; return the seconds and the results."""
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        started = time.perf_counter()
        results = list(threads.map(work, range(count)))
        return time.perf_counter() - started, results


@torch.inference_mode()
def batched_steps() -> None:
    """Print the seconds of a step for several images, one by one and in a batch."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    transformer = pipeline.model.networks.transformer
    conditioning = pipeline.encode("a red apple", never_cancelled)
    row = pipeline.modulate(conditioning, 4, never_cancelled).row(0)
    txt = conditioning.embeddings.txt
    print(f"\nA step of sketch in {pipeline.model.precision}, 512x512\n")
    print("| images | ms, one by one | ms, in a batch | ratio | equal bits |\n|---|---|---|---|---|")
    for batch in BATCHES:
        states = [pipeline.init_latents(REQUEST.changed(seed=seed)) for seed in range(batch)]
        latents = [state.latents[0] for state in states]
        rows, columns = states[0].rows, states[0].columns
        ids, txt_ids = image_ids(rows, columns), text_ids(txt.shape[1])

        def one_by_one(latents: list[Tensor] = latents, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            return torch.cat([transformer.velocity(img, ids, txt, txt_ids, row, never_cancelled) for img in latents])

        def batched(latents: list[Tensor] = latents, ids: Tensor = ids, txt_ids: Tensor = txt_ids) -> Tensor:
            wide, wide_ids, wide_txt_ids = (tensor.expand(len(latents), -1, -1) for tensor in (txt, ids, txt_ids))
            return transformer.velocity(torch.cat(latents), wide_ids, wide, wide_txt_ids, row, never_cancelled)

        is_equal = bool(torch.equal(one_by_one(), batched()))
        timed: tuple[list[float], list[float]] = ([], [])
        for _ in range(RUNS):
            for way, found in zip((one_by_one, batched), timed, strict=True):
                started = time.perf_counter()
                way()
                found.append(1000 * (time.perf_counter() - started))
        single_ms, batch_ms = (statistics.median(found) for found in timed)
        print(f"| {batch} | {single_ms:.1f} | {batch_ms:.1f} | {single_ms / batch_ms:.2f} | {is_equal} |", flush=True)


if __name__ == "__main__":
    main()
