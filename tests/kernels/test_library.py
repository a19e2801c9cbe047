"""Loading of the compiled library, and its instruction set level."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from tests.kernels.native import cpu_flags

AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"}
AMX = AVX512 | {"amx_tile", "amx_int8", "amx_bf16"}


def test_highest_supported_isa_level_is_used() -> None:
    if not shutil.which("g++"):
        pytest.skip("no compiler here")
    if not cpu_flags() >= {"avx2", "fma"} or library.LIMIT_VARIABLE in os.environ:
        pytest.skip(f"this CPU has no AVX2, or {library.LIMIT_VARIABLE} is set")
    assert library.is_built(), "there is a compiler, but the package was built without its kernels"
    expected = IsaLevel.AVX512 if cpu_flags() >= AVX512 else IsaLevel.AVX2
    assert library.level() == (IsaLevel.AMX if cpu_flags() >= AMX else expected)


def test_library_and_level_are_read_at_first_call() -> None:
    code = (
        "import os; from allaprima.kernels import library;"
        "print(library.library.cache_info().currsize);"
        "os.environ[library.LIMIT_VARIABLE] = 'torch';"
        "print(library.level().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "TORCH"]


def test_limited_lowers_isa_level_inside_context() -> None:
    before = library.level()
    with library.limited(IsaLevel.TORCH):
        assert library.level() == IsaLevel.TORCH
        assert not library.supports_rows(torch.zeros(2).bfloat16())
    assert library.level() == before
