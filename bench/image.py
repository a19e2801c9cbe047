"""Measures the milliseconds to encode a photograph-like 1024x768 image as PNG, and to run the safety checker on it."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.engine.encode import ImageMetadata, encode
from allaprima.engine.safety.checker import SafetyChecker

RUNS = 31


def main() -> None:
    """Measure and print medians."""
    y, x = np.mgrid[0:768, 0:1024] / 256
    field = np.stack([np.sin(3 * x + y), np.cos(2 * y - x), np.sin(x * y)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 5, field.shape)
    pixels = (127 + 100 * field + noise).clip(0, 255).astype(np.uint8)
    request = GenerationRequest(prompt="a field", seed=7, model="allaprima/sketch")
    metadata = ImageMetadata(request.metadata(0), "0" * 16, "fp32")
    checker = SafetyChecker.load()
    print(f"PNG 1024x768: {median_ms(lambda: encode(pixels, metadata)):.1f} ms, median of {RUNS}")
    with torch.inference_mode():
        print(f"safety score: {median_ms(lambda: checker.score(torch.from_numpy(pixels))):.1f} ms, median of {RUNS}")


def median_ms(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a call."""
    call()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
