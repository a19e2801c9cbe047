"""Options that several commands share, and the settings that the command line lays over the environment's."""

from pathlib import Path
from typing import Annotated, Any

import typer

from allaprima.settings import Settings, load_settings

DataDir = Annotated[Path | None, typer.Option(help="Folder of the database, the images and the secrets.")]
ModelPaths = Annotated[
    list[Path] | None,
    typer.Option("--model", help="Folder or file of a model to load in addition to sketch; may be repeated."),
]
TokenizerDir = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of FLUX's tokenizers, for models whose files bring none.")
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Number format of the weights (quantization): fp32, bf16, fp8, int8, int8wo or int4wo.",
        show_default="bf16 where it fits, else int8",
    ),
]


def read_settings(**groups: dict[str, Any]) -> Settings:
    """Return the settings with the options of a command over them; an option that is None was not given.

    Raises `SettingsError`.
    """
    given = {
        group: {name: value for name, value in values.items() if value is not None} for group, values in groups.items()
    }
    return load_settings(**{group: values for group, values in given.items() if values})


def store_settings(data_dir: Path | None) -> Settings:
    """Return the settings of a command that works on a data folder alone. Raises `SettingsError`."""
    return read_settings(store={"data_dir": data_dir})
