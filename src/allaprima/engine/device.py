"""The compute device: whether it supports the settings, and how many requests it runs at a time."""

from collections.abc import Sequence

import torch

from allaprima.domain.models import Precision
from allaprima.errors import SettingsError
from allaprima.kernels import library
from allaprima.settings import EngineSettings
from allaprima.weights.networks import ModelFiles
from allaprima.weights.quantize import can_run, footprint

#: Largest small model, in bytes of float32 weights. One image of a small model does not use all cores, and several
#: requests fit in memory.
SMALL_MODEL_BYTES = 2**28
#: Most requests that are generated at a time.
MAX_CONCURRENCY = 4


def prepare_device(settings: EngineSettings) -> EngineSettings:
    """Check that the device exists and supports the precision, and set the number of CPU threads.

    Returns the settings with `cuda` or `cpu` in place of `auto`. Raises `SettingsError` when the check fails.
    """
    settings = with_device(settings)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"engine.device = {settings.device!r}: this machine has no such device; use cpu")
    if settings.precision and not can_run(Precision(settings.precision), settings.device):
        raise SettingsError(
            f"engine.precision = {settings.precision!r} needs a GPU with float8 support (compute capability 8.9 or "
            f"more), which engine.device = {settings.device!r} lacks; use int8"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return settings


def with_device(settings: EngineSettings) -> EngineSettings:
    """Return settings with the device that `auto` chooses: a GPU if torch finds one, else the CPU."""
    if settings.device != "auto":
        return settings
    return settings.model_copy(update={"device": "cuda" if torch.cuda.is_available() else "cpu"})


def device_name(device: str) -> str:
    """Return the name of the hardware of a device. device: "cpu" or "cuda"."""
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def max_concurrency(settings: EngineSettings, opened: Sequence[ModelFiles]) -> int:
    """Return how many requests are generated at a time: one per core, at most 4, if three conditions hold; otherwise 1.

    All models must be small, the CPU must have allaprima's AVX-512 kernels, and the precision must be bfloat16.
    Concurrent requests share the cores, so the number of threads of a request varies while it runs, and only these
    kernels compute the same bits with every number of threads.
    """
    has_kernels = settings.device == "cpu" and library.level() >= library.IsaLevel.AVX512
    is_bf16 = settings.precision in (None, Precision.BF16.value)
    is_small = all(footprint(files.config, Precision.FP32).whole <= SMALL_MODEL_BYTES for files in opened)
    return min(MAX_CONCURRENCY, torch.get_num_threads()) if has_kernels and is_bf16 and is_small else 1
