"""The checks of `allaprima doctor`: this machine's hardware, the package and the models."""

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
    is_ok: bool = True
    #: Whether allaprima can't generate images if the check fails.
    is_required: bool = False


def run_checks(weights_dir: Path) -> list[Finding]:
    """Check the machine, the package and the downloaded models. weights_dir: folder of downloaded models."""
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
        "memory", f"{total / GIB:.1f} GiB; the built-in model needs about 1 GiB", total > GIB, is_required=True
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", f"{free / GIB:.1f} GiB free in the current folder; an image takes about 1 MB", free > GIB)


def _torch() -> Finding:
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _kernels() -> Finding:
    message = {
        IsaLevel.AMX: "compiled, for AMX and AVX-512 VNNI and BF16",
        IsaLevel.AVX512: "compiled, for AVX-512 VNNI and BF16",
        IsaLevel.AVX2: "compiled, for AVX2: int8 matrix products only; torch computes the rest",
        IsaLevel.TORCH: "none for this CPU; torch alone is several times slower",
    }[library.level()]
    if not library.is_built():
        message = "not built: they require x86-64 and GCC 10 or later; torch alone is several times slower"
    return Finding("CPU kernels", message, is_ok=library.level() > IsaLevel.TORCH)


def _gpu() -> Finding:
    if torch.cuda.is_available():
        return Finding("GPU", f"{torch.cuda.get_device_name()}; enable it with ALLAPRIMA_ENGINE__DEVICE=cuda")
    return Finding("GPU", "torch finds none; images are generated on the CPU")


def _sketch() -> Finding:
    try:
        revision = open_model(sketch_folder()).load().revision
    except WeightsError as exc:
        return Finding(SKETCH_ID, exc.message, is_ok=False, is_required=True)
    return Finding(SKETCH_ID, f"the built-in model is complete, revision {revision}", is_required=True)


def _safety() -> Finding:
    try:
        SafetyChecker.load()
    except WeightsError as exc:
        return Finding("safety checker", exc.message, is_ok=False, is_required=True)
    return Finding("safety checker", "OpenNSFW is complete", is_required=True)


def _schnell(weights_dir: Path) -> Finding:
    if pulled := pulled_folders(weights_dir, SCHNELL_ID):
        return Finding(SCHNELL_ID, f"downloaded to {pulled[0]}")
    return Finding(
        SCHNELL_ID,
        f"not downloaded, so {SKETCH_ID} is its fallback; download it with `allaprima pull {SCHNELL_ID}`, or select "
        "existing files with --model",
        is_ok=False,
    )


def _packed_weights(weights_dir: Path) -> Finding:
    size = sum(file.stat().st_size for file in (weights_dir / "packed").rglob("*.safetensors"))
    return Finding(
        "packed weights",
        f"{size / GIB:.1f} GiB in {weights_dir / 'packed'}; you can delete this folder while no server runs, and it "
        "is created again when a model needs it",
    )


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """The memory that FLUX.1 [schnell] needs in one precision. weights, memory: bytes."""

    precision: Precision
    weights: int
    memory: int
    fits: bool
    message: str


def precision_rows(device: str) -> list[PrecisionRow]:
    """Return the memory that each precision needs on a device (cpu or cuda), and whether it is available."""
    is_available = device == "cpu" or torch.cuda.is_available()
    free = available_bytes(device) if is_available else 0
    rows = []
    for precision in Precision:
        memory = needed_bytes(SCHNELL, precision, device)
        fits = free is None or memory <= free
        message = "fits" if fits else f"needs {(memory - (free or 0)) / GIB:.1f} GiB more than is free"
        if not can_run(precision, device):
            fits, message = False, "requires a GPU with float8 matrix products"
        rows.append(PrecisionRow(precision, footprint(SCHNELL, precision).whole, memory, fits, message))
    return rows
