"""The compute device: whether it can do what the settings ask, and how many requests it runs at a time."""

from collections.abc import Sequence

import torch

from allaprima.domain.models import Precision
from allaprima.errors import SettingsError
from allaprima.kernels import library
from allaprima.settings import EngineSettings
from allaprima.weights.networks import ModelFiles
from allaprima.weights.quantize import can_run, footprint

#: Size in float32 up to which a model is small: one image does not use all cores, and memory holds several requests.
SMALL_MODEL_BYTES = 2**28
#: Most requests that are generated at a time.
MAX_CONCURRENCY = 4


def prepare_device(settings: EngineSettings) -> None:
    """CancelCheck that the device exists and supports the precision, and set the number of CPU threads.

    Raises `SettingsError`.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"engine.device = {settings.device!r}: this machine has no such device; use cpu")
    if settings.precision and not can_run(Precision(settings.precision), settings.device):
        raise SettingsError(
            f"engine.precision = {settings.precision!r} needs a GPU that multiplies float8 (compute capability 8.9 or "
            f"more), which engine.device = {settings.device!r} is not; use int8"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)


def max_concurrency(settings: EngineSettings, opened: Sequence[ModelFiles]) -> int:
    """Return how many requests are generated at a time: one per core where all models are small, otherwise one.

    Concurrent requests share the cores, so the threads of each vary while it runs. Only allaprima's kernels give the
    same bits for every number of threads, so without them, or in a precision that they do not cover, the answer is one.
    """
    has_kernels = settings.device == "cpu" and library.level() >= library.IsaLevel.AVX512
    is_bf16 = settings.precision in (None, Precision.BF16.value)
    is_small = all(footprint(files.config, Precision.FP32).whole <= SMALL_MODEL_BYTES for files in opened)
    return min(MAX_CONCURRENCY, torch.get_num_threads()) if has_kernels and is_bf16 and is_small else 1
