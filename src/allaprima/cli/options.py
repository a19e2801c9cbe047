"""Options that several commands share, and settings that combine them with the environment."""

from pathlib import Path
from typing import Annotated, Any

import typer

from allaprima.domain.database_url import SETTING, has_password
from allaprima.errors import SettingsError
from allaprima.settings import PREFIX, Settings, load_settings

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the database, the images and the signing secret.", show_default="data")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="PostgreSQL database, without a password: postgresql://user@host:5432/database.",
        show_default="SQLite in the data folder",
        metavar="URL",
    ),
]
ModelPaths = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Folder or file of a model to load in addition to sketch, or NAME=PATH to serve it under a name; may be "
        "repeated.",
        metavar="[NAME=]PATH",
    ),
]
TokenizerDir = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="Folder of FLUX's tokenizers, instead of the model's own or the package's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where the model runs: auto (a GPU if torch finds one), cpu or cuda.", show_default="auto", metavar="NAME"
    ),
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Number format of the weights (quantization): fp32, bf16, fp8, int8, int8wo or int4wo.",
        show_default="bf16 if it fits, else int8",
    ),
]

#: The options that override settings.
_OPTIONS = {
    "store.data_dir": "--data-dir",
    "store.database_url": "--database-url",
    "store.bucket": "--bucket",
    "engine.models": "--model",
    "engine.tokenizer_dir": "--tokenizer",
    "engine.precision": "--precision",
    "engine.device": "--device",
    "server.host": "--host",
    "server.port": "--port",
    "server.public_url": "--public-url",
}


def read_settings(**groups: dict[str, Any]) -> Settings:
    """Return the settings. Options of the command line override the environment; None is an omitted option.

    groups: options by field name, one dict per group. Raises `SettingsError`, which names an option where it was given.
    """
    given = {
        group: {name: value for name, value in values.items() if value is not None} for group, values in groups.items()
    }
    if has_password(given.get("store", {}).get("database_url", "")):
        raise SettingsError(
            "--database-url contains a password, which every user of this machine can read in the list of processes; "
            f"set {SETTING} instead, or PGPASSWORD, or use a pass file"
        )
    try:
        return load_settings(**{group: values for group, values in given.items() if values})
    except SettingsError as exc:
        message = exc.message
        for setting, option in _OPTIONS.items():
            group, _, name = setting.partition(".")
            if name in given.get(group, {}):
                message = message.replace(f"{setting} = ", f"{option} = ")
                message = message.replace(f"{PREFIX}{setting.replace('.', '__').upper()} ", f"{option} ")
        raise SettingsError(message) from exc


def store_settings(data_dir: Path | None, database_url: str | None = None) -> Settings:
    """Return the settings of a command that reads the data folder or the database alone. Raises `SettingsError`."""
    return read_settings(store={"data_dir": data_dir, "database_url": database_url})
