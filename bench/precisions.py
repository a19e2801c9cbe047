"""The loss of quality in each precision: relative error of every block, and PSNR and SSIM of whole images.

Measured on the built-in model against float32, with the prompts of its evaluation suite. A block's error is the
relative L2 error of its output for the input that it has in the float32 model. Prints tables in Markdown.
"""

import argparse
import datetime as dt
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.pipeline import Pipeline, Pixels
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from service import cpu_name
from training.evaluate.benchmark import benchmark_prompts

BLOCKS = ("transformer.double_blocks", "transformer.single_blocks", "t5.encoder.block")
OTHERS = (Precision.BF16, Precision.INT8, Precision.INT8WO, Precision.FP8, Precision.INT4WO)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50, help="number of images to compare")
    options = parser.parse_args()
    prompts = benchmark_prompts()
    requests = [
        GenerationRequest(prompt=prompt.text, seed=seed, model=SKETCH_ID, width=512, height=512)
        for seed, prompt in enumerate(prompts[:: max(1, len(prompts) // options.images)][: options.images])
    ]
    exact = load(Precision.FP32)
    references = [exact.generate(request)[0] for request in requests]
    others = {precision: load(precision) for precision in OTHERS}
    print(f"{cpu_name()}, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    print("| precision | PSNR, dB, median | worst | SSIM, median | worst |\n|---|---|---|---|---|")
    for precision, pipeline in others.items():
        found = [pipeline.generate(request)[0] for request in requests]
        noise = [psnr(one, other) for one, other in zip(found, references, strict=True)]
        similarity = [ssim(one, other) for one, other in zip(found, references, strict=True)]
        shown = (statistics.median(noise), min(noise), statistics.median(similarity), min(similarity))
        print(f"| {precision} | {shown[0]:.1f} | {shown[1]:.1f} | {shown[2]:.4f} | {shown[3]:.4f} |", flush=True)
    print(f"\n| block | {' | '.join(others)} |\n|---|{'---|' * len(others)}")
    errors = {precision: block_errors(exact, other, requests[0]) for precision, other in others.items()}
    for block in errors[OTHERS[0]]:
        print(f"| {block} | {' | '.join(f'{100 * errors[precision][block]:.2f} %' for precision in others)} |")


def load(precision: Precision) -> Pipeline:
    """Return the built-in model in a precision."""
    return Pipeline(open_model(sketch_folder()).load("cpu", precision), "cpu")


def psnr(found: Pixels, wanted: Pixels) -> float:
    """Return the peak signal-to-noise ratio in decibels."""
    error = float(np.square(found.astype(float) - wanted.astype(float)).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(found: Pixels, wanted: Pixels) -> float:
    """Return the structural similarity, 1 for equal images."""
    return float(structural_similarity(found, wanted, channel_axis=2))


@torch.inference_mode()
def block_errors(exact: Pipeline, other: Pipeline, request: GenerationRequest) -> dict[str, float]:
    """Return every block's relative error in one request, by the block's name."""
    calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls.setdefault(name, []).append((inputs, output))

        return hook

    networks = exact.model.networks
    names = [f"{stack}.{i}" for stack in BLOCKS for i in range(len(list(networks.get_submodule(stack).children())))]
    handles = [networks.get_submodule(name).register_forward_hook(record(name)) for name in names]
    Pipeline(exact.model, "cpu").generate(request)
    for handle in handles:
        handle.remove()
    dtype = other.model.networks.transformer.img_in.weight.dtype
    errors = {}
    for name in names:
        block = other.model.networks.get_submodule(name)
        found = [block(*(cast(part, dtype) for part in inputs)) for inputs, _ in calls[name]]
        errors[name] = relative(found, [output for _, output in calls[name]])
    return errors


def cast(part: Any, dtype: torch.dtype) -> Any:
    """Return a block's input in another dtype; what is not a tensor is returned as it is."""
    return part.to(dtype) if isinstance(part, Tensor) else part


def relative(found: list[Any], wanted: list[Any]) -> float:
    """Return the relative L2 error of all outputs together."""

    def joined(outputs: list[Any]) -> Tensor:
        parts = [part for output in outputs for part in (output if isinstance(output, tuple) else (output,))]
        return torch.cat([part.double().flatten() for part in parts])

    exact = joined(wanted)
    return float((joined(found) - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
