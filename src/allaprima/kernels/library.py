"""The compiled kernels, where this machine has them: `native/` in C++, called with plain pointers.

The package's own build compiles them into one small library that knows nothing of torch. They use the OpenMP that torch
has loaded, and so its threads, as many as `torch.get_num_threads` says. Where there is no compiler, or a CPU that they
do not know, torch's own operations make the same products: every caller has both.
"""

import ctypes
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch
from torch import Tensor


class Level(IntEnum):
    """What of the compiled kernels runs here."""

    #: Nothing: torch's operations do it all.
    TORCH = 0
    #: The int8 products.
    AVX2 = 1
    #: All of them: AVX-512 with VNNI and BF16.
    AVX512 = 2
    #: All of them, and products by AMX.
    AMX = 3


#: Of the functions and structures that `native/kernels.h` declares; both sides rise together.
VERSION = 2
#: No more than that is used, whatever is there: `torch`, `avx2` or `avx512`. For a look at what a kernel changes.
LIMIT_VARIABLE = "ALLAPRIMA_KERNELS"
LIMITS = {level.name.lower(): level for level in Level}
logger = logging.getLogger(__name__)


def _load() -> ctypes.CDLL | None:
    # It is no Python module, but the build puts it beside this one under a module's name.
    spec = importlib.util.find_spec("allaprima.kernels._native")
    if not spec or not spec.origin:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as exc:
        logger.warning("the compiled kernels can't be loaded (%s); torch's own operations are used", exc)
        return None
    if library.allaprima_version() != VERSION:
        logger.warning("the compiled kernels are of another version; install the package again (torch's are used)")
        return None
    return library


_library: ctypes.CDLL | None = None
_level = Level.TORCH


def _use(library: ctypes.CDLL | None) -> None:
    """Call this library's functions from now on, as far as the CPU and the environment let them."""
    global _library  # noqa: PLW0603 - one machine, one choice
    _library = library
    found = Level(library.allaprima_level()) if library else Level.TORCH
    _set(min(found, LIMITS.get(os.environ.get(LIMIT_VARIABLE, ""), max(Level))))


def _set(level: Level) -> None:
    global _level  # noqa: PLW0603 - as above
    _level = level
    if _library:
        _library.allaprima_use(level)


_use(_load())


def level() -> Level:
    """Return what is in use."""
    return _level


def signature() -> str:
    """Return what computes here, with its version: pictures may differ by a bit between two of these."""
    return f"{_level.name.lower()}-{VERSION}-torch-{torch.__version__}"


def is_built() -> bool:
    """Say whether the library is there at all."""
    return _library is not None


@contextmanager
def limited(to: Level) -> Iterator[None]:
    """Use no more than that for a while, in all threads."""
    before = _level
    _set(min(before, to))
    try:
        yield
    finally:
        _set(before)


def takes(*tensors: Tensor | None) -> bool:
    """Say whether the kernels of AVX-512 and AMX can be given rows of these: rows are dense, and `knows` them."""
    return knows(*tensors) and all(tensor is None or tensor.stride(-1) == 1 for tensor in tensors)


def knows(*tensors: Tensor | None) -> bool:
    """Say whether the kernels of AVX-512 and AMX can be given such numbers: bfloat16, and `is_plain`."""
    return _level >= Level.AVX512 and all(
        tensor is None or (tensor.dtype == torch.bfloat16 and is_plain(tensor)) for tensor in tensors
    )


def is_plain(*tensors: Tensor) -> bool:
    """Say whether these are on the CPU, and no gradient is asked of them."""
    return all(
        tensor.device.type == "cpu" and not (tensor.requires_grad and torch.is_grad_enabled()) for tensor in tensors
    )


def call(name: str, *arguments: Tensor | ctypes.Structure | float | None) -> None:
    """Call a function of `native/kernels.h`, with the number of threads behind its arguments."""
    function = getattr(_library, f"allaprima_{name}")
    function(*map(_pass, arguments), ctypes.c_int(torch.get_num_threads()))


def _pass(value: Tensor | ctypes.Structure | float | None) -> object:
    match value:
        case None:
            return ctypes.c_void_p()
        case Tensor():
            return ctypes.c_void_p(value.data_ptr())
        case ctypes.Structure():
            return ctypes.byref(value)
        case int():
            return ctypes.c_int64(value)
    return ctypes.c_float(value)
