"""`allaprima pull`: the files of FLUX.1 [schnell], shown with their licences before they are fetched."""

from typing import Annotated

import typer
from rich.table import Table

from allaprima.cli.options import read_settings
from allaprima.cli.refusals import console, refusals
from allaprima.domain.models import SCHNELL_ID, find
from allaprima.errors import FieldProblem, InvalidRequest

EXAMPLES = "Examples: [bold]allaprima pull flux/schnell[/bold] · [bold]allaprima pull flux/schnell --layout bf16[/bold]"


def pull(
    model: Annotated[str, typer.Argument(help="The model's name: flux/schnell.")] = SCHNELL_ID,
    layout: Annotated[str, typer.Option(help="bf16 (as published), fp8, gguf-q8 or gguf-q4.")] = "gguf-q8",
) -> None:
    """Fetch the files of flux/schnell from the hub. An interrupted pull resumes."""
    with refusals():
        from allaprima.weights import hub
        from allaprima.weights.paths import default_folder

        _check(model, layout, tuple(hub.LAYOUTS))
        plan = hub.plan_pull(layout, read_settings().engine.weights_dir or default_folder())
        table = Table("from", "licence", "files", "GB")
        for repo, licence in plan.licences.items():
            files = [file for file in plan.files if file.repo == repo]
            table.add_row(repo, licence, str(len(files)), f"{sum(file.size for file in files) / 1e9:.2f}")
        console.print(table)
        sizes = f"{plan.size / 1e9:.2f} GB in all, {plan.missing / 1e9:.2f} GB to fetch"
        console.print(f"{sizes}, into {plan.folder}", markup=False)
        hub.pull(plan, lambda file: console.print(f"{file.repo}: {file.name}", markup=False))
        console.print(f"{SCHNELL_ID} is complete; serve it with: allaprima serve --model {SCHNELL_ID}", markup=False)
        typer.echo(plan.folder)


def _check(model: str, layout: str, layouts: tuple[str, ...]) -> None:
    problems = []
    entry = find(model)
    if entry is None or entry.id != SCHNELL_ID:
        problems.append(FieldProblem("MODEL", f"must be {SCHNELL_ID}, the only model to pull; it is {model[:60]}"))
    if layout not in layouts:
        problems.append(FieldProblem("--layout", f"must be one of {', '.join(layouts)}; it is {layout[:60]}"))
    if problems:
        raise InvalidRequest(*problems)
