"""The compiled kernels of `native/` (C++), called with plain pointers.

The package's build compiles them into one small shared library that does not depend on torch. They run on torch's
OpenMP threads, as many as `torch.get_num_threads()` says. Without a compiler at build time, or on a CPU that the
kernels do not support, callers use torch's own operations instead: every caller has both.

The library is loaded, once per process, by the first call of a function here; importing this module loads nothing. At
that moment the environment variable `ALLAPRIMA_KERNELS` is read too, the one variable that does not go through
`allaprima.settings`: it is for developers who compare the kernels with torch, and so it also applies to tests and
benchmarks, which have no settings.
"""

import ctypes
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor


class IsaLevel(IntEnum):
    """The instruction sets that the compiled kernels may use; each level includes those below it."""

    #: No compiled kernels: torch's operations only.
    TORCH = 0
    #: The int8 product for AVX2.
    AVX2 = 1
    #: All kernels, with AVX-512, VNNI and BF16.
    AVX512 = 2
    #: All kernels, with matrix products by AMX.
    AMX = 3


#: Version of the interface in `native/kernels.h`; both sides are incremented together.
VERSION = 3
#: The environment variable that limits the level: `torch`, `avx2` or `avx512`.
LIMIT_VARIABLE = "ALLAPRIMA_KERNELS"
LIMITS = {level.name.lower(): level for level in IsaLevel}
logger = logging.getLogger(__name__)


class Library:
    """A loaded shared library, or its absence, and the level in use.

    The level is process-wide: the C++ side keeps a copy of it.
    """

    def __init__(self, functions: ctypes.CDLL | None) -> None:
        self.functions: ctypes.CDLL | None = None
        self.level = IsaLevel.TORCH
        self.use(functions)

    def use(self, functions: ctypes.CDLL | None) -> None:
        """Call these functions from now on, None for torch's, at the highest level that CPU and environment allow."""
        self.functions = functions
        supported = IsaLevel(functions.allaprima_level()) if functions else IsaLevel.TORCH
        limit = LIMITS.get(os.environ.get(LIMIT_VARIABLE, ""), max(IsaLevel))
        self.set_level(min(supported, limit))

    def set_level(self, level: IsaLevel) -> None:
        """Use this level, at most what the CPU supports, from now on and in every thread."""
        self.level = level
        if self.functions:
            self.functions.allaprima_set_level(level)


@lru_cache(maxsize=1)
def library() -> Library:
    """Return the process's library, loaded by the first call."""
    return Library(_load())


def _load() -> ctypes.CDLL | None:
    # It is not a Python extension, but the build puts it next to this module under a module's name.
    spec = importlib.util.find_spec("allaprima.kernels._native")
    if not spec or not spec.origin:
        return None
    try:
        functions = ctypes.CDLL(spec.origin)
    except OSError as exc:
        logger.warning("the compiled kernels cannot be loaded (%s); torch's own operations are used", exc)
        return None
    if functions.allaprima_version() != VERSION:
        logger.warning(
            "the compiled kernels were built from another version; reinstall the package (torch's operations are used)"
        )
        return None
    return functions


def level() -> IsaLevel:
    """Return the level in use."""
    return library().level


def signature() -> str:
    """Return a name for the code that computes here: two signatures may differ in the last bits of an image."""
    return f"{level().name.lower()}-{VERSION}-torch-{torch.__version__}"


def is_built() -> bool:
    """Return whether the library was built and could be loaded."""
    return library().functions is not None


@contextmanager
def limited(to: IsaLevel) -> Iterator[None]:
    """Use at most this level inside the context, in all threads."""
    before = level()
    library().set_level(min(before, to))
    try:
        yield
    finally:
        library().set_level(before)


def supports_rows(*tensors: Tensor | None) -> bool:
    """Return whether the AVX-512 and AMX kernels can read rows of these tensors.

    True if `supports_dtype` and the values of the last axis are contiguous; None counts as supported.
    """
    return supports_dtype(*tensors) and all(tensor is None or tensor.stride(-1) == 1 for tensor in tensors)


def supports_dtype(*tensors: Tensor | None) -> bool:
    """Return whether the AVX-512 and AMX kernels are in use and these tensors are bfloat16 and `is_cpu_inference`.

    None counts as supported.
    """
    return level() >= IsaLevel.AVX512 and all(
        tensor is None or (tensor.dtype == torch.bfloat16 and is_cpu_inference(tensor)) for tensor in tensors
    )


def is_cpu_inference(*tensors: Tensor) -> bool:
    """Return whether all tensors are on the CPU and none of them needs a gradient."""
    return all(
        tensor.device.type == "cpu" and not (tensor.requires_grad and torch.is_grad_enabled()) for tensor in tensors
    )


def call(name: str, *arguments: Tensor | ctypes.Structure | float | None) -> None:
    """Call the function `allaprima_<name>` of `native/kernels.h`, with torch's number of threads as the last argument.

    Tensors are passed as pointers to their data, None as a null pointer, int as int64, float as float32.
    """
    function = getattr(library().functions, f"allaprima_{name}")
    function(*map(_as_ctypes, arguments), ctypes.c_int(torch.get_num_threads()))


def _as_ctypes(value: Tensor | ctypes.Structure | float | None) -> object:
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
