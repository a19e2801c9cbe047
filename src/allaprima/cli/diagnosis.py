"""The checks of `allaprima doctor`: this machine's hardware, the package and the models."""

import asyncio
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from allaprima.bootstrap.operator import check_bucket, stored_bytes
from allaprima.cli.database_findings import check_postgres
from allaprima.cli.finding import Finding
from allaprima.cli.tables import print_table
from allaprima.domain.models import SCHNELL_ID, SKETCH_ID, Precision
from allaprima.engine.device import device_name, prepare_device, with_device
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.errors import SettingsError, WeightsError
from allaprima.flux import SCHNELL, ModelConfig
from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from allaprima.service.image_space import WARNING_SHARE, space_warning
from allaprima.settings import EngineSettings, Settings, StoreSettings
from allaprima.weights.memory import available_bytes
from allaprima.weights.open import open_model, open_models
from allaprima.weights.paths import default_folder, pulled_folders, sketch_folder
from allaprima.weights.quantize import can_run, footprint, needed_bytes

GIB = 2**30
LIMIT_SETTING = "ALLAPRIMA_STORE__MAX_IMAGE_BYTES"


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """The memory that a model needs in one precision. weights, memory: bytes."""

    precision: Precision
    weights: int
    memory: int
    fits: bool
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings on this machine."""

    findings: tuple[Finding, ...]
    #: "cpu" or "cuda".
    device: str
    #: What FLUX.1 [schnell] needs on that device.
    rows: tuple[PrecisionRow, ...]

    @property
    def is_able(self) -> bool:
        """Whether what is configured can run."""
        return all(finding.is_ok for finding in self.findings if finding.is_required)

    def to_json(self) -> str:
        """Return the diagnosis as JSON."""
        rows = [asdict(row) for row in self.rows]
        findings = [finding.to_json() for finding in self.findings]
        found = {"is_able": self.is_able, "findings": findings, "device": self.device, "schnell": rows}
        return json.dumps(found, indent=2)

    def print(self) -> None:
        """Print a line for each finding, and a table of the precisions."""
        lines = Console(highlight=False, soft_wrap=True)
        for finding in self.findings:
            mark = "[green]ok[/green]     " if finding.is_ok else f"[red]{finding.failure}[/red]"
            lines.print(f"{mark} [bold]{finding.name}[/bold]: {escape(finding.message)}")
        rows = [
            (str(row.precision), f"{row.weights / GIB:.1f}", f"{row.memory / GIB:.1f}", row.message)
            for row in self.rows
        ]
        columns = ("precision", "weights, GiB", "memory, GiB", "status")
        print_table(Console(highlight=False), columns, rows, f"flux/schnell on {self.device}")


def diagnose(settings: Settings) -> Diagnosis:
    """Check this machine, the package, the settings, the models, the database and the images."""
    device = with_device(settings.engine).device
    findings = run_checks(settings.engine, settings.engine.weights_dir or default_folder())
    images = _images(settings.store) if settings.store.bucket is None else _bucket(settings.store.bucket)
    database = check_postgres(settings.store) if settings.store.database_url else []
    return Diagnosis((*findings, *database, images), device, tuple(precision_rows(SCHNELL, device)))


def run_checks(settings: EngineSettings, weights_dir: Path) -> list[Finding]:
    """Check the machine, the package, the settings and the models. weights_dir: folder of downloaded models."""
    return [
        _processor(),
        _memory(),
        _disk(),
        _torch(),
        _kernels(),
        _gpu(),
        _configured(settings),
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
        return Finding("GPU", torch.cuda.get_device_name())
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        return Finding(
            "GPU",
            "this machine has one, but torch is built for CPUs only; install the build for GPUs with `pip install "
            f"--force-reinstall torch=={torch.__version__.partition('+')[0]}`",
            is_ok=False,
        )
    return Finding("GPU", "torch finds none; images are generated on the CPU")


def _configured(settings: EngineSettings) -> Finding:
    """Check that the configured models can run on the configured device in the configured precision."""
    try:
        chosen = prepare_device(settings)
        opened = open_models(settings.models, settings.tokenizer_dir, settings.weights_dir)
    except (SettingsError, WeightsError) as exc:
        return Finding("settings", exc.message, is_ok=False, is_required=True)
    models = ", ".join(files.id for files in opened)
    unused = [f"{file.path} {file.reason}" for files in opened for file in files.unused]
    note = f"; not used: {'; '.join(unused)}" if unused else ""
    return Finding("settings", f"{models} on {device_name(chosen.device)}{note}", is_required=True)


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


def _images(settings: StoreSettings) -> Finding:
    folder, limit = settings.data_dir.absolute(), settings.max_image_bytes
    try:
        size = stored_bytes(folder)
    except OSError as exc:
        return Finding("images", f"{folder} can't be read: {exc.strerror}", is_ok=False, failure="warning")
    if limit is None:
        return Finding("images", f"{size / GIB:.2f} GiB in {folder}, without a limit; see the setting {LIMIT_SETTING}")
    share = size / limit
    if share >= WARNING_SHARE:
        return Finding("images", f"{space_warning(share)} ({folder})", is_ok=False, failure="warning")
    return Finding("images", f"{size / GIB:.2f} GiB in {folder}, {share:.0%} of {LIMIT_SETTING}")


def _bucket(url: str) -> Finding:
    """Check the bucket by putting, reading, listing and deleting an object, and reading a range of it."""
    try:
        seconds = asyncio.run(check_bucket(url))
    except SettingsError as exc:
        return Finding("images", exc.message, is_ok=False, is_required=True)
    message = f"the bucket takes put, get, range, list and delete; one round trip takes {seconds * 1000:.1f} ms"
    return Finding("images", message, is_required=True)


def precision_rows(config: ModelConfig, device: str) -> list[PrecisionRow]:
    """Return the memory that a model needs in each precision on a device (cpu or cuda), and whether it is available."""
    is_available = device == "cpu" or torch.cuda.is_available()
    free = available_bytes(device) if is_available else 0
    rows = []
    for precision in Precision:
        memory = needed_bytes(config, precision, device)
        fits = free is None or memory <= free
        message = "fits" if fits else f"needs {(memory - (free or 0)) / GIB:.1f} GiB more than is free"
        if not can_run(precision, device):
            fits, message = False, "requires a GPU with float8 matrix products"
        rows.append(PrecisionRow(precision, footprint(config, precision).whole, memory, fits, message))
    return rows
