"""`allaprima doctor`: hardware and models of this machine, and what is missing."""

import typer
from rich.console import Console
from rich.table import Table

from allaprima.cli.options import read_settings
from allaprima.cli.refusals import refusals


def doctor() -> None:
    """Report the hardware and the models of this machine, and what is missing."""
    with refusals():
        from allaprima.cli.diagnosis import GIB, examine, precision_rows
        from allaprima.weights.paths import default_folder

        settings = read_settings().engine
        findings = examine(settings.weights_dir or default_folder())
        for finding in findings:
            mark = "[green]ok[/green]     " if finding.is_good else "[red]missing[/red]"
            Console(highlight=False, soft_wrap=True).print(f"{mark} [bold]{finding.name}[/bold]: {finding.message}")
        table = Table("precision", "weights, GiB", "memory, GiB", "here", title=f"flux/schnell on {settings.device}")
        for row in precision_rows(settings.device):
            table.add_row(row.precision, f"{row.weights / GIB:.1f}", f"{row.memory / GIB:.1f}", row.message)
        Console().print(table)
    if not all(finding.is_good for finding in findings if finding.is_needed):
        raise typer.Exit(1)
