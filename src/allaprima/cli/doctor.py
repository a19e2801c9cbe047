"""`allaprima doctor`: checks this machine with its settings, models and data folder, or the files of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.interrupts import kept_interrupts
from allaprima.cli.options import AsJson, DatabaseUrl, DataDir, Device, TokenizerDir, read_settings
from allaprima.settings import Settings

if TYPE_CHECKING:
    from allaprima.cli.diagnosis import Diagnosis
    from allaprima.cli.model_report import ModelReport


ModelPath = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]",
        help="Folder or file of a model, or its name: what each of its files is, what is used, what is missing, and "
        "which precision fits. Only headers are read.",
        show_default="this machine",
    ),
]


def doctor(
    path: ModelPath = None,
    device: Device = None,
    tokenizer: TokenizerDir = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Check this machine, or a model's files; exit with 1 if what is configured, or the model, can't run."""
    with reported_errors():
        settings = read_settings(
            engine={"device": device, "tokenizer_dir": tokenizer},
            store={"data_dir": data_dir, "database_url": database_url},
        )
        with console.status("checking this machine" if path is None else f"reading {path}"), kept_interrupts():
            found = _examine(path, settings)
        if as_json:
            typer.echo(found.to_json())
        else:
            found.print()
    if not found.is_able:
        raise typer.Exit(1)


def _examine(path: str | None, settings: Settings) -> Diagnosis | ModelReport:
    if path is None:
        from allaprima.cli.diagnosis import diagnose

        return diagnose(settings)
    from allaprima.cli.model_report import report_model

    return report_model(path, settings.engine)
