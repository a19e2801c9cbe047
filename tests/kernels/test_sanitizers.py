"""Runs the kernels' tests on a build with sanitizers, which check everything except masked loads and stores."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kernels.native import NEEDS_AVX512

ROOT = Path(__file__).parents[2]
TESTS = ["test_native_linear.py", "test_native_attention.py", "test_norms.py", "test_convolution.py"]
TESTS.append("test_int8_product.py")


@pytest.mark.slow
@NEEDS_AVX512
def test_kernels_have_no_sanitizer_errors(tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("no compiler here")
    (extension,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    library = tmp_path / "sanitized.so"
    options = [*extension["extra-compile-args"], "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["g++", *options, "-o", library, *extension["sources"]], cwd=ROOT, check=True)
    runtime = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtime),
        # Python and torch do not free all memory at exit.
        "ASAN_OPTIONS": "detect_leaks=0",
        "SANITIZED_KERNELS": str(library),
    }
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
