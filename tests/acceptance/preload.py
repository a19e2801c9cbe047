"""Libraries for LD_PRELOAD, which replace functions of the system in a server's process."""

import shutil
import subprocess
from pathlib import Path

import pytest


def build_library(folder: Path, source: str) -> Path:
    """Compile a library from C and return its path. Skips the test where gcc is missing."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    (folder / "library.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "library.so", "library.c", "-ldl"], cwd=folder, check=True)
    return folder / "library.so"
