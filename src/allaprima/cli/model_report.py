"""The report of `allaprima doctor PATH`: what each file of a model is, what is used, what is missing, and what fits.

Only headers are read.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from allaprima.cli.diagnosis import GIB, PrecisionRow, precision_rows
from allaprima.cli.tables import print_table
from allaprima.domain.models import SCHNELL_ID
from allaprima.engine.device import with_device
from allaprima.errors import WeightsError
from allaprima.settings import EngineSettings
from allaprima.weights.builtin import open_model_folder
from allaprima.weights.builtin_header import TOKENIZER_FILE, WEIGHTS_FILE, is_model_folder
from allaprima.weights.checkpoint.inventory import COMPONENT_NAMES, FoundFile, Inventory, take_inventory
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.checkpoint.loader import validated_config
from allaprima.weights.paths import default_folder, find_model, pulled_folders
from allaprima.weights.tokenizers import find_tokenizers


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file of weights, or several that are of no use."""

    #: Path of the file, below the model's path where it lies there.
    file: str
    #: What it is.
    holds: str
    #: "used", "missing", or why it is not used.
    use: str


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What is at a path."""

    path: Path
    files: tuple[FileRow, ...]
    #: Why the model can't be loaded.
    error: str | None
    device: str
    #: What the model needs on that device in each precision; empty for a model that can't be loaded.
    rows: tuple[PrecisionRow, ...]

    @property
    def is_able(self) -> bool:
        """Whether the model is complete and fits in at least one precision."""
        return self.error is None and any(row.fits for row in self.rows)

    def to_json(self) -> str:
        """Return the report as JSON."""
        values: dict[str, Any] = {"is_able": self.is_able, **asdict(self), "path": str(self.path)}
        return json.dumps(values, indent=2, ensure_ascii=False)

    def print(self) -> None:
        """Print one table: the files, what is missing, and the precisions; then the reason of a refusal."""
        rows = [(row.file, row.holds, row.use) for row in self.files]
        rows += [
            (
                str(row.precision),
                f"precision on {self.device}: {row.weights / GIB:.1f} GiB of weights, {row.memory / GIB:.1f} GiB",
                row.message,
            )
            for row in self.rows
        ]
        print_table(Console(highlight=False), ("file", "what it is", "use"), rows, str(self.path))
        if self.error is not None:
            Console(highlight=False, soft_wrap=True, markup=False).print(f"refused: {self.error}")


def report_model(model: str, settings: EngineSettings) -> ModelReport:
    """Examine a model without loading it.

    model: a path, `NAME=PATH`, a name in the settings, or a known name. Raises `WeightsMissing` for no such path, and
    `SettingsError` for a name that a model can't have.
    """
    weights_dir = settings.weights_dir or default_folder()
    path = find_model(model, settings.models, weights_dir).path
    device = with_device(settings).device
    if is_model_folder(path):
        return _report_model_folder(path, device)
    inventory = take_inventory(path, pulled_folders(weights_dir, SCHNELL_ID))
    files = list(_file_rows(inventory))
    error = inventory.error
    rows: Sequence[PrecisionRow] = ()
    if error is None:
        try:
            config = validated_config(inventory.components)
            t5_file = inventory.components[Component.T5].container
            tokenizers = find_tokenizers(settings.tokenizer_dir, inventory.folders, t5_file, inventory.pulled)
            tokenizers.load(config)
            files.append(FileRow("(tokenizers)", str(tokenizers), "used"))
            rows = precision_rows(config, device)
        except WeightsError as exc:
            error = exc
    return ModelReport(path, tuple(files), error.message if error else None, device, tuple(rows))


def _report_model_folder(path: Path, device: str) -> ModelReport:
    try:
        files = open_model_folder(path)
    except WeightsError as exc:
        return ModelReport(path, (), exc.message, device, ())
    rows = (
        FileRow(WEIGHTS_FILE, f"the model {files.id} in the built-in format", "used"),
        FileRow(TOKENIZER_FILE, "its word list", "used"),
    )
    return ModelReport(path, rows, None, device, tuple(precision_rows(files.config, device)))


def _file_rows(inventory: Inventory) -> Iterator[FileRow]:
    shown = set()
    for file in inventory.found:
        shown.add(file.path)
        reason = inventory.reason_against(file)
        yield FileRow(_name(file.path, inventory.path), _contents(file), f"not used: {reason}" if reason else "used")
    for component, source in inventory.components.items():
        if source.container.path not in shown:
            yield FileRow(
                str(source.container.path),
                f"{COMPONENT_NAMES[component].partition(' (')[0]}, of a pulled layout",
                "used",
            )
    for component in inventory.missing:
        yield FileRow("-", COMPONENT_NAMES[component], "missing")
    for unopened in inventory.unopened:
        kind = "folder" if unopened.path.is_dir() else "not opened"
        yield FileRow(_name(unopened.path, inventory.path), kind, f"not used: {unopened.reason}")
    if inventory.others:
        yield FileRow("(other files)", f"{inventory.others} that are no weights by their names", "not used")


def _short_name(component: Component) -> str:
    return COMPONENT_NAMES[component].partition(" (")[0]


def _name(path: Path, model: Path) -> str:
    folder = model if model.is_dir() else model.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _contents(file: FoundFile) -> str:
    """Return what a file holds, with its most frequent number format and its size."""
    size = sum(one.stat().st_size for one in file.source.files if one.is_file())
    if file.unusable is not None:
        what = file.unusable.what
    elif file.components:
        what = ", ".join(map(_short_name, file.components))
    else:
        what = "not readable" if file.error is not None else "other tensors"
    formats = list(file.container.dtypes.values()) if file.container else []
    most = max(sorted(set(formats)), key=formats.count, default="")
    shards = f"{len(file.source.files)} shards" if len(file.source.files) > 1 else ""
    return ", ".join(one for one in (what, most, shards, _size(size)) if one)


def _size(nbytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} B"
