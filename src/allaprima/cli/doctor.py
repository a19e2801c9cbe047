"""`allaprima doctor`: checks the hardware and the models of this machine."""

import typer
from rich.console import Console
from rich.table import Table

from allaprima.cli.errors import reported_errors
from allaprima.cli.options import read_settings


def doctor() -> None:
    """Check the hardware and the models of this machine; exit with 1 if a required part is missing."""
    with reported_errors():
        from allaprima.cli.diagnosis import GIB, precision_rows, run_checks
        from allaprima.weights.paths import default_folder

        settings = read_settings().engine
        findings = run_checks(settings.weights_dir or default_folder())
        for finding in findings:
            mark = "[green]ok[/green]     " if finding.is_ok else "[red]missing[/red]"
            Console(highlight=False, soft_wrap=True).print(f"{mark} [bold]{finding.name}[/bold]: {finding.message}")
        table = Table("precision", "weights, GiB", "memory, GiB", "status", title=f"flux/schnell on {settings.device}")
        for row in precision_rows(settings.device):
            table.add_row(row.precision, f"{row.weights / GIB:.1f}", f"{row.memory / GIB:.1f}", row.message)
        Console().print(table)
    if not all(finding.is_ok for finding in findings if finding.is_required):
        raise typer.Exit(1)
