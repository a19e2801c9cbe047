"""Loads the compiled kernels of `native/` (C++) and calls them with plain pointers.

The package's build compiles the kernels into one shared library that does not depend on torch. They run on
`torch.get_num_threads()` threads of torch's OpenMP thread pool. If the build had no compiler, or the CPU does not
support the kernels, the callers in this package use torch's operations instead.

The first call of a function here loads the library, once per process; importing this module loads nothing. The first
call also reads the environment variable `ALLAPRIMA_KERNELS`. Every other variable is read by `allaprima.settings`; this
one is for developers who compare the kernels with torch, and must also apply to tests and benchmarks, which have no
settings.
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
    """The instruction sets that the compiled kernels may use. Each level includes the levels below it."""

    #: No compiled kernels; torch computes everything.
    TORCH = 0
    #: Only the int8 product, with AVX2.
    AVX2 = 1
    #: All kernels, with AVX-512, VNNI and BF16.
    AVX512 = 2
    #: All kernels, with AMX for matrix products.
    AMX = 3


#: Version of the interface in `native/kernels.h`. It must equal the version in `native/dispatch.cpp`.
VERSION = 3
#: The environment variable that limits the level: `torch`, `avx2` or `avx512`.
LIMIT_VARIABLE = "ALLAPRIMA_KERNELS"
LIMITS = {level.name.lower(): level for level in IsaLevel}
logger = logging.getLogger(__name__)


class Library:
    """The loaded shared library, if there is one, and the level in use.

    The level applies to the whole process: the C++ code has a global copy of it.
    """

    def __init__(self, functions: ctypes.CDLL | None) -> None:
        self.functions: ctypes.CDLL | None = None
        self.level = IsaLevel.TORCH
        self.use(functions)

    def use(self, functions: ctypes.CDLL | None) -> None:
        """Use these functions, or torch if None, at the highest level that the CPU and `LIMIT_VARIABLE` allow."""
        self.functions = functions
        supported = IsaLevel(functions.allaprima_level()) if functions else IsaLevel.TORCH
        limit = LIMITS.get(os.environ.get(LIMIT_VARIABLE, ""), max(IsaLevel))
        self.set_level(min(supported, limit))

    def set_level(self, level: IsaLevel) -> None:
        """Use this level in all threads. It must not exceed the level that the CPU supports."""
        self.level = level
        if self.functions:
            self.functions.allaprima_set_level(level)


@lru_cache(maxsize=1)
def library() -> Library:
    """Return the library of this process. The first call loads it."""
    return Library(_load())


def _load() -> ctypes.CDLL | None:
    # The library is not a Python extension, but the build stores it next to this module under the name of one.
    spec = importlib.util.find_spec("allaprima.kernels._native")
    if not spec or not spec.origin:
        return None
    try:
        functions = ctypes.CDLL(spec.origin)
    except OSError as exc:
        logger.warning("the compiled kernels cannot be loaded (%s); torch's operations are used", exc)
        return None
    if functions.allaprima_version() != VERSION:
        logger.warning(
            "the compiled kernels have another version than the package, so torch's operations are used; "
            "reinstall the package"
        )
        return None
    return functions


def level() -> IsaLevel:
    """Return the level in use."""
    return library().level


def signature() -> str:
    """Return a name of the kernels and their versions. Images computed under two signatures can differ slightly."""
    return f"{level().name.lower()}-{VERSION}-torch-{torch.__version__}"


def is_built() -> bool:
    """Return whether the shared library exists and was loaded."""
    return library().functions is not None


@contextmanager
def limited(to: IsaLevel) -> Iterator[None]:
    """Limit the level to at most `to` in the context, in all threads."""
    before = level()
    library().set_level(min(before, to))
    try:
        yield
    finally:
        library().set_level(before)


def supports_rows(*tensors: Tensor | None) -> bool:
    """Return whether the AVX-512 and AMX kernels support these tensors as matrices of rows.

    This is the case if `supports_dtype` and the last axis is contiguous. None counts as supported.
    """
    return supports_dtype(*tensors) and all(tensor is None or tensor.stride(-1) == 1 for tensor in tensors)


def supports_dtype(*tensors: Tensor | None) -> bool:
    """Return whether the AVX-512 or AMX kernels are in use and these tensors are bfloat16 and `is_cpu_inference`.

    None counts as supported.
    """
    return level() >= IsaLevel.AVX512 and all(
        tensor is None or (tensor.dtype == torch.bfloat16 and is_cpu_inference(tensor)) for tensor in tensors
    )


def is_cpu_inference(*tensors: Tensor) -> bool:
    """Return whether all tensors are on the CPU and no gradient of them is recorded."""
    return all(
        tensor.device.type == "cpu" and not (tensor.requires_grad and torch.is_grad_enabled()) for tensor in tensors
    )


def call(name: str, *arguments: Tensor | ctypes.Structure | float | None) -> None:
    """Call the function `allaprima_<name>` of `native/kernels.h`. Its last argument is torch's number of threads.

    A tensor is passed as a pointer to its data, None as a null pointer, an int as int64, a float as float32.
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
