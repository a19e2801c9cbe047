"""`allaprima doctor`: what is here and what is missing, in words."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from allaprima.domain.models import SCHNELL_ID, SKETCH_ID, Precision
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.errors import WeightsError
from allaprima.flux import SCHNELL
from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from allaprima.weights.memory import available_bytes
from allaprima.weights.open import open_model
from allaprima.weights.paths import pulled_folders, sketch_folder
from allaprima.weights.quantize import can_run, footprint, needed_bytes

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    words: str
    is_good: bool = True
    #: Whether allaprima can't paint without it.
    is_needed: bool = False


def examine(weights_dir: Path) -> list[Finding]:
    """Look at the machine, the package and the pulled models."""
    return [
        _processor(),
        _memory(),
        _disk(),
        _torch(),
        _kernels(),
        _gpu(),
        _sketch(),
        _safety(),
        _schnell(weights_dir),
        _shelf(weights_dir),
    ]


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("processor", f"{platform.machine()}, {cores} cores, {capability}")


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory() -> Finding:
    total = _total_memory()
    return Finding(
        "memory", f"{total / GIB:.1f} GiB; the built-in model needs about 1 GiB", total > GIB, is_needed=True
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", f"{free / GIB:.1f} GiB free here; a picture takes about 1 MB", free > GIB)


def _torch() -> Finding:
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _kernels() -> Finding:
    words = {
        IsaLevel.AMX: "compiled, for AMX and AVX-512 VNNI and BF16",
        IsaLevel.AVX512: "compiled, for AVX-512 VNNI and BF16",
        IsaLevel.AVX2: "compiled, for AVX2: the int8 products; the rest is torch's",
        IsaLevel.TORCH: "none for this CPU; torch's own operations paint, some times slower",
    }[library.level()]
    if not library.is_built():
        words = "not built: they want x86-64 and GCC 10 or later; torch's own operations paint, some times slower"
    return Finding("CPU kernels", words, is_good=library.level() > IsaLevel.TORCH)


def _gpu() -> Finding:
    if torch.cuda.is_available():
        return Finding("GPU", f"{torch.cuda.get_device_name()}; use it with ALLAPRIMA_ENGINE__DEVICE=cuda")
    return Finding("GPU", "none that torch can use; the CPU paints")


def _sketch() -> Finding:
    try:
        revision = open_model(sketch_folder()).load().revision
    except WeightsError as exc:
        return Finding(SKETCH_ID, exc.message, is_good=False, is_needed=True)
    return Finding(SKETCH_ID, f"the built-in model is whole, revision {revision}", is_needed=True)


def _safety() -> Finding:
    try:
        SafetyChecker.load()
    except WeightsError as exc:
        return Finding("safety checker", exc.message, is_good=False, is_needed=True)
    return Finding("safety checker", "OpenNSFW is whole", is_needed=True)


def _schnell(weights_dir: Path) -> Finding:
    if pulled := pulled_folders(weights_dir, SCHNELL_ID):
        return Finding(SCHNELL_ID, f"pulled into {pulled[0]}")
    return Finding(
        SCHNELL_ID,
        f"{SKETCH_ID} stands in for it; fetch its files with `allaprima pull {SCHNELL_ID}`, or name those that you "
        "have with --model",
        is_good=False,
    )


def _shelf(weights_dir: Path) -> Finding:
    size = sum(file.stat().st_size for file in (weights_dir / "packed").rglob("*.safetensors"))
    return Finding(
        "packed weights",
        f"{size / GIB:.1f} GiB in {weights_dir / 'packed'}; while no server runs it may be removed, and is made anew",
    )


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """What FLUX.1 [schnell] takes in one precision, in bytes, and whether this machine has that."""

    precision: Precision
    weights: int
    memory: int
    fits: bool
    words: str


def precision_rows(device: str) -> list[PrecisionRow]:
    """Return what every precision takes on a device, and what fits here."""
    is_here = device == "cpu" or torch.cuda.is_available()
    free = available_bytes(device) if is_here else 0
    rows = []
    for precision in Precision:
        memory = needed_bytes(SCHNELL, precision, device)
        fits = free is None or memory <= free
        words = "fits" if fits else f"needs {(memory - (free or 0)) / GIB:.1f} GiB more than is free"
        if not can_run(precision, device):
            fits, words = False, "needs a GPU that multiplies float8"
        rows.append(PrecisionRow(precision, footprint(SCHNELL, precision).whole, memory, fits, words))
    return rows
