"""Both models on a GPU: the built-in model's images compared with the CPU's, and the speed of FLUX.1 [schnell].

FLUX's weights are random numbers drawn on the GPU: the speed does not depend on their values. Prints tables in
Markdown.
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

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.flux import SCHNELL, never_cancelled
from allaprima.weights.networks import Model
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.quantize import build_networks
from allaprima.weights.tokenizers import word_tokenizer, word_tokenizers
from training.data.captions import vocabulary

PROMPT = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
GPU_PRECISIONS = (Precision.BF16, Precision.FP8, Precision.INT8, Precision.INT8WO, Precision.INT4WO)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs, of which the median is printed")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    print("| sketch, 1024x768, 4 steps | seconds | mean difference to float32 on a CPU, of 255 levels |\n|---|---|---|")
    request = GenerationRequest(prompt=PROMPT, seed=0, model=SKETCH_ID, width=1024, height=768)
    files = open_model(sketch_folder())
    exact = Pipeline(files.load("cpu", Precision.FP32), "cpu").generate(request)[0].astype(float)
    for precision in GPU_PRECISIONS:
        pipeline = Pipeline(files.load("cuda", precision), "cuda")
        found = pipeline.generate(request)[0].astype(float)
        took = median_s(partial(pipeline.generate, request), options.rounds)
        print(f"| {precision} | {took:.3f} | {np.abs(found - exact).mean():.2f} |", flush=True)
    print("\n| schnell, 4 steps | prompt encoded | 1024x768 | 1024x1024 | peak memory, GiB |\n|---|---|---|---|---|")
    for precision in GPU_PRECISIONS:
        figures = schnell_figures(precision, options.rounds)
        print(f"| {precision} | {' | '.join(f'{figure:.3g}' for figure in figures)} |", flush=True)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def schnell_figures(precision: Precision, rounds: int) -> list[float]:
    """Return the seconds to encode a new prompt, the seconds to generate 1024x768 and 1024x1024 pixels with a cached
    prompt, and the peak memory in GiB.
    """
    model = random_schnell(precision)
    pipeline = Pipeline(model, "cuda")
    requests = [
        GenerationRequest(prompt=PROMPT, seed=0, model="schnell", width=1024, height=height) for height in (768, 1024)
    ]
    encode_s = median_s(lambda: Pipeline(model, "cuda").encode(PROMPT, never_cancelled), rounds)
    generate_s = [median_s(partial(pipeline.generate, request), rounds) for request in requests]
    return [encode_s, *generate_s, torch.cuda.max_memory_allocated() / 2**30]


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of `rounds` runs, after a warm-up run."""
    took = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return statistics.median(took[1:])


def random_schnell(precision: Precision) -> Model:
    """Return FLUX.1 [schnell] on the GPU, with random weights and a vocabulary of a few hundred words."""
    networks = build_networks(SCHNELL, precision).to_empty(device="cuda")
    for name, tensor in networks.state_dict().items():
        fill(name, tensor, 0.02 if precision == Precision.FP8 else 0.02 / 64)
    tokenizers = word_tokenizers(word_tokenizer(vocabulary()), SCHNELL)
    return Model("schnell", "random", precision, SCHNELL, networks, *tokenizers)


def fill(name: str, tensor: Tensor, scale: float) -> None:
    """Fill a tensor with random numbers, so that weights have a standard deviation of about 0.02.

    scale: the value of quantization scales that are float32.
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
