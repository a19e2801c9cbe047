"""Options that several commands share, and settings that combine them with the environment."""

from pathlib import Path
from typing import Annotated, Any

import typer

from allaprima.errors import SettingsError
from allaprima.settings import Settings, load_settings

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the database, the images and the signing secret.", show_default="data")
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
    try:
        return load_settings(**{group: values for group, values in given.items() if values})
    except SettingsError as exc:
        message = exc.message
        for setting, option in _OPTIONS.items():
            group, _, name = setting.partition(".")
            if name in given.get(group, {}):
                message = message.replace(f"{setting} = ", f"{option} = ")
        raise SettingsError(message) from exc


def store_settings(data_dir: Path | None) -> Settings:
    """Return the settings of a command whose only setting is the data folder. Raises `SettingsError`."""
    return read_settings(store={"data_dir": data_dir})
