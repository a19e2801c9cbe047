"""`allaprima doctor`: what is here and what is missing, in words."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from allaprima.engine.safety import SafetyChecker
from allaprima.errors import WeightsError
from allaprima.weights.catalog import SCHNELL_ID, SKETCH_ID, sketch_folder
from allaprima.weights.memory import available_bytes
from allaprima.weights.model import open_model

GIB = 2**30
#: Bytes of FLUX.1 [schnell] with its encoders in bfloat16, and of what painting takes beside them.
SCHNELL_BYTES = 34 * GIB


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    words: str
    is_good: bool = True
    #: Whether allaprima can't paint without it.
    is_needed: bool = False


def examine() -> list[Finding]:
    """Look at the machine and the package."""
    return [_processor(), _memory(), _disk(), _torch(), _gpu(), _sketch(), _safety(), _schnell()]


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


def _schnell() -> Finding:
    free = available_bytes("cpu") or _total_memory()
    fits = "would fit" if free > SCHNELL_BYTES else "does not fit"
    return Finding(
        SCHNELL_ID,
        f"{SKETCH_ID} stands in for it until its files are named with --model; in bfloat16 it needs "
        f"{SCHNELL_BYTES / GIB:.0f} GiB, which {fits} here ({free / GIB:.1f} GiB are free)",
        is_good=False,
    )
