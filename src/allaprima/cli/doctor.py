"""`allaprima doctor`: checks the hardware, the settings, the models and the data folder of this machine."""

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.interrupts import kept_interrupts
from allaprima.cli.options import AsJson, DataDir, Device, read_settings


def doctor(device: Device = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check hardware, settings, models and the images' space; exit with 1 if what is configured can't run."""
    with reported_errors():
        settings = read_settings(engine={"device": device}, store={"data_dir": data_dir})
        with console.status("checking this machine"), kept_interrupts():
            from allaprima.cli.diagnosis import diagnose

            diagnosis = diagnose(settings)
        if as_json:
            typer.echo(diagnosis.to_json())
        else:
            diagnosis.print()
    if not diagnosis.is_able:
        raise typer.Exit(1)
