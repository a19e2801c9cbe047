"""The checks of `allaprima doctor`: hardware, package and models of this machine."""

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
    """The result of one check."""

    name: str
    message: str
    is_good: bool = True
    #: Whether allaprima generates no images without it.
    is_needed: bool = False


def examine(weights_dir: Path) -> list[Finding]:
    """Check the machine, the package and the pulled models."""
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
        _packed_weights(weights_dir),
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
    return Finding("disk", f"{free / GIB:.1f} GiB free here; an image takes about 1 MB", free > GIB)


def _torch() -> Finding:
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _kernels() -> Finding:
    message = {
        IsaLevel.AMX: "compiled, for AMX and AVX-512 VNNI and BF16",
        IsaLevel.AVX512: "compiled, for AVX-512 VNNI and BF16",
        IsaLevel.AVX2: "compiled, for AVX2: the int8 matrix product; torch does the rest",
        IsaLevel.TORCH: "none for this CPU; torch generates images several times slower",
    }[library.level()]
    if not library.is_built():
        message = "not built: they need x86-64 and GCC 10 or later; torch generates images several times slower"
    return Finding("CPU kernels", message, is_good=library.level() > IsaLevel.TORCH)


def _gpu() -> Finding:
    if torch.cuda.is_available():
        return Finding("GPU", f"{torch.cuda.get_device_name()}; use it with ALLAPRIMA_ENGINE__DEVICE=cuda")
    return Finding("GPU", "none that torch can use; images are generated on the CPU")


def _sketch() -> Finding:
    try:
        revision = open_model(sketch_folder()).load().revision
    except WeightsError as exc:
        return Finding(SKETCH_ID, exc.message, is_good=False, is_needed=True)
    return Finding(SKETCH_ID, f"the built-in model is complete, revision {revision}", is_needed=True)


def _safety() -> Finding:
    try:
        SafetyChecker.load()
    except WeightsError as exc:
        return Finding("safety checker", exc.message, is_good=False, is_needed=True)
    return Finding("safety checker", "OpenNSFW is complete", is_needed=True)


def _schnell(weights_dir: Path) -> Finding:
    if pulled := pulled_folders(weights_dir, SCHNELL_ID):
        return Finding(SCHNELL_ID, f"pulled into {pulled[0]}")
    return Finding(
        SCHNELL_ID,
        f"{SKETCH_ID} is the fallback; fetch its files with `allaprima pull {SCHNELL_ID}`, or name files that you "
        "have with --model",
        is_good=False,
    )


def _packed_weights(weights_dir: Path) -> Finding:
    size = sum(file.stat().st_size for file in (weights_dir / "packed").rglob("*.safetensors"))
    return Finding(
        "packed weights",
        f"{size / GIB:.1f} GiB in {weights_dir / 'packed'}; it may be removed while no server runs, and is created "
        "again when a model needs it",
    )


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """Memory that FLUX.1 [schnell] needs in one precision, in bytes, and whether it is available."""

    precision: Precision
    weights: int
    memory: int
    fits: bool
    message: str


def precision_rows(device: str) -> list[PrecisionRow]:
    """Return what every precision needs on a device, and whether it fits."""
    is_here = device == "cpu" or torch.cuda.is_available()
    free = available_bytes(device) if is_here else 0
    rows = []
    for precision in Precision:
        memory = needed_bytes(SCHNELL, precision, device)
        fits = free is None or memory <= free
        message = "fits" if fits else f"needs {(memory - (free or 0)) / GIB:.1f} GiB more than is free"
        if not can_run(precision, device):
            fits, message = False, "needs a GPU that multiplies float8"
        rows.append(PrecisionRow(precision, footprint(SCHNELL, precision).whole, memory, fits, message))
    return rows
