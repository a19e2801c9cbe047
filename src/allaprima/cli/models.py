"""`allaprima models`, `show`, `rm` and `ps`: the models on this machine, and those that a server runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import AsJson, DataDir, read_settings, store_settings
from allaprima.domain.models import CATALOG, SKETCH_ID, CatalogEntry, ModelInfo, find
from allaprima.errors import FieldProblem, InvalidRequest

if TYPE_CHECKING:
    from allaprima.weights.roster import ModelRoster

ModelName = Annotated[str, typer.Argument(help="Name of a model, such as flux/schnell.")]


def models(as_json: AsJson = False) -> None:
    """List the known models, and whether their weights are on this machine."""
    with reported_errors():
        from allaprima.cli.tables import print_list

        roster = _roster()
        named = [_named_record(info) for info in roster.models if find(info.id) is None]
        records = [_record(entry, roster) for entry in CATALOG] + named
        rows = [(one["id"], ", ".join(one["aliases"]), one["description"], one["weights"]) for one in records]
        print_list(("id", "aliases", "description", "weights"), rows, records, as_json=as_json)


def show(model: ModelName, as_json: AsJson = False) -> None:
    """Show one model: its names, its developer, and its files on this machine."""
    with reported_errors():
        from allaprima.cli.tables import print_list

        record = _shown(model)
        if as_json:
            typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
            return
        rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in record.items()]
        print_list(("member", "value"), rows, [record], as_json=False)


def remove(
    model: ModelName,
    layout: Annotated[
        str | None, typer.Option(help="Layout to remove, such as gguf-q8.", show_default="all layouts")
    ] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the downloaded files of a model."""
    with reported_errors():
        entry = _entry(model)
        if entry.id == SKETCH_ID:
            raise InvalidRequest(FieldProblem("MODEL", f"must be a downloaded model; {SKETCH_ID} is in the package"))
        folders = [folder for folder in _pulled(entry) if layout in (None, folder.name)]
        if not folders:
            what = entry.id if layout is None else f"the layout {layout} of {entry.id}"
            raise InvalidRequest(FieldProblem("MODEL", f"{what} is not downloaded"))
        for folder in folders:
            size = f"{_size(folder) / 1e9:.2f} GB in {folder}"
            if not yes:
                typer.confirm(f"Remove {size}?", abort=True, err=True)
            shutil.rmtree(folder)
            console.print(f"removed {size}", markup=False)


def ps(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the models that the running server has loaded."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator, ask_server
        from allaprima.cli.tables import print_list

        settings = store_settings(data_dir)
        # A shared database is not locked, so only the socket tells whether a server runs.
        ask = ask_operator if settings.store.database_url is None else ask_server
        found = ask(settings, lambda operator: operator.list_models())
        rows = [(one["id"], one["state"], one["precision"] or "", one["revision"] or "") for one in found]
        print_list(("id", "state", "precision", "revision"), rows, found, as_json=as_json)
    if not found:
        console.print("no server runs on this data folder")


def _entry(name: str) -> CatalogEntry:
    entry = find(name)
    if entry is None:
        known = ", ".join(one.id for one in CATALOG)
        raise InvalidRequest(FieldProblem("MODEL", f"must be one of {known}; it is {name[:60]}"))
    return entry


def _shown(name: str) -> dict[str, Any]:
    """Return the record of a known model, or of one that the settings name."""
    roster = _roster()
    for info in roster.models:
        if info.id == name and find(name) is None:
            return _named_record(info)
    return _record(_entry(name), roster)


def _named_record(info: ModelInfo) -> dict[str, Any]:
    """Return the record of a model of the settings that is not in the catalog."""
    known = find(info.own_id)
    return {
        "id": info.id,
        "aliases": [],
        "name": info.name,
        "description": info.description,
        "developer": known.developer if known else "",
        "weights": "on this machine",
        "layouts": [],
    }


def _record(entry: CatalogEntry, roster: ModelRoster) -> dict[str, Any]:
    folders = [] if entry.id == SKETCH_ID else _pulled(entry)
    return {
        "id": entry.id,
        "aliases": list(entry.aliases),
        "name": entry.name,
        "description": entry.description,
        "developer": entry.developer,
        "weights": _where(entry, folders, roster),
        "layouts": [{"name": one.name, "folder": str(one), "bytes": _size(one)} for one in folders],
    }


def _roster() -> ModelRoster:
    """Return the models of the settings."""
    from allaprima.weights.roster import open_roster

    settings = read_settings().engine
    return open_roster(settings.models, settings.tokenizer_dir, settings.weights_dir)


def _where(entry: CatalogEntry, folders: list[Path], roster: ModelRoster) -> str:
    if entry.id == SKETCH_ID:
        return "in the package"
    if entry.id in {model.id for model in roster.models}:
        return "on this machine"
    return f"downloaded; serve them with --model {entry.id}" if folders else "missing; sketch is the fallback"


def _pulled(entry: CatalogEntry) -> list[Path]:
    from allaprima.weights.paths import pulled_folders

    return pulled_folders(_weights_dir(), entry.id)


def _weights_dir() -> Path:
    from allaprima.weights.paths import default_folder

    return read_settings().engine.weights_dir or default_folder()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
