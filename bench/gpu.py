"""What a GPU makes of the two models: the built-in one's pictures against the CPU's, and FLUX.1 [schnell]'s speed.

FLUX's weights are random numbers of the right sizes, made on the GPU: no speed depends on what they are. Prints tables
in Markdown.
"""

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from allaprima.engine.pipeline import Pipeline
from allaprima.flux import SCHNELL, no_check
from allaprima.request import ImageRequest, Precision
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.model import open_model
from allaprima.weights.networks import Model
from allaprima.weights.precision import build_networks
from allaprima.weights.tokenizer import word_tokenizer, word_tokenizers
from training.data.captions import vocabulary

PROMPT = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
GPU_PRECISIONS = (Precision.BF16, Precision.FP8, Precision.INT8, Precision.INT8WO, Precision.INT4WO)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times of which the median is told")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    print("| sketch, 1024x768, 4 steps | seconds | mean difference to float32 on a CPU, of 255 levels |\n|---|---|---|")
    request = ImageRequest(PROMPT, 0, SKETCH_ID, 1024, 768)
    files = open_model(sketch_folder())
    exact = Pipeline(files.load("cpu", Precision.FP32), "cpu").paint(request)[0].astype(float)
    for precision in GPU_PRECISIONS:
        pipeline = Pipeline(files.load("cuda", precision), "cuda")
        found = pipeline.paint(request)[0].astype(float)
        took = median_s(partial(pipeline.paint, request), options.rounds)
        print(f"| {precision} | {took:.3f} | {np.abs(found - exact).mean():.2f} |", flush=True)
    print("\n| schnell, 4 steps | prompt read | 1024x768 | 1024x1024 | peak memory, GiB |\n|---|---|---|---|---|")
    for precision in GPU_PRECISIONS:
        told = schnell_figures(precision, options.rounds)
        print(f"| {precision} | {' | '.join(f'{figure:.3g}' for figure in told)} |", flush=True)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def schnell_figures(precision: Precision, rounds: int) -> list[float]:
    """Return seconds of reading a new prompt, of a picture of 1024x768 and of one of 1024x1024 whose prompt is known,
    and the most memory that was held, in GiB.
    """
    model = random_schnell(precision)
    pipeline = Pipeline(model, "cuda")
    requests = [ImageRequest(PROMPT, 0, "schnell", *size) for size in ((1024, 768), (1024, 1024))]
    read = median_s(lambda: Pipeline(model, "cuda").encode(PROMPT, no_check), rounds)
    painted = [median_s(partial(pipeline.paint, request), rounds) for request in requests]
    return [read, *painted, torch.cuda.max_memory_allocated() / 2**30]


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of some rounds, after one that is not counted."""
    took = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - begun)
    return statistics.median(took[1:])


def random_schnell(precision: Precision) -> Model:
    """Return FLUX.1 [schnell] on the GPU, with random weights and a word list of a few hundred of its ids."""
    networks = build_networks(SCHNELL, precision).to_empty(device="cuda")
    for name, tensor in networks.state_dict().items():
        fill(name, tensor, 0.02 if precision == Precision.FP8 else 0.02 / 64)
    tokenizers = word_tokenizers(word_tokenizer(vocabulary()), SCHNELL)
    return Model("schnell", "random", precision, SCHNELL, networks, *tokenizers)


def fill(name: str, tensor: Tensor, scale: float) -> None:
    """Put random numbers into a tensor, so that weights deviate by about 0.02, as in a network at its beginning.

    scale: of packed weights, where it is float32.
    """
    if tensor.dtype == torch.int8:
        tensor.random_(-127, 128)
    elif tensor.dtype == torch.uint8:
        tensor.random_(0, 256)
    elif tensor.dtype == torch.float8_e4m3fn:
        tensor.copy_(torch.randn(tensor.shape, dtype=torch.bfloat16, device=tensor.device))
    elif name.endswith(".scale") and tensor.dtype == torch.float32:
        tensor.fill_(scale)
    else:
        tensor.normal_(0, 0.02)


if __name__ == "__main__":
    main()
