"""`allaprima pull`: downloads the files of FLUX.1 [schnell], after a list of their licences and sizes."""

from typing import Annotated

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import read_settings
from allaprima.domain.models import SCHNELL_ID, find
from allaprima.errors import FieldProblem, InvalidRequest

EXAMPLES = """Examples:

allaprima pull flux/schnell

allaprima pull flux/schnell --layout bf16"""


def pull(
    model: Annotated[str, typer.Argument(help="Name of the model: flux/schnell.")] = SCHNELL_ID,
    layout: Annotated[
        str, typer.Option(help="Format of the weights: bf16 (as published), fp8, gguf-q8 or gguf-q4.")
    ] = "gguf-q8",
) -> None:
    """Download the files of flux/schnell from the Hugging Face Hub. An interrupted download resumes."""
    with reported_errors():
        from allaprima.cli.tables import print_table
        from allaprima.weights import hub
        from allaprima.weights.paths import default_folder

        _check(model, layout, tuple(hub.LAYOUTS))
        console.print(f"asking the hub for the files of {SCHNELL_ID}", markup=False)
        plan = hub.plan_pull(layout, read_settings().engine.weights_dir or default_folder())
        rows = []
        for repo, licence in plan.licences.items():
            files = [file for file in plan.files if file.repo == repo]
            rows.append((repo, licence, str(len(files)), f"{sum(file.size for file in files) / 1e9:.2f}"))
        print_table(console, ("from", "licence", "files", "GB"), rows, None)
        sizes = f"{plan.size / 1e9:.2f} GB in total, {plan.missing / 1e9:.2f} GB to download"
        console.print(f"{sizes}, to {plan.folder}", markup=False)
        hub.pull(plan, lambda file: console.print(f"{file.repo}: {file.name}", markup=False))
        console.print(f"{SCHNELL_ID} is complete; serve it with: allaprima serve --model {SCHNELL_ID}", markup=False)
        typer.echo(plan.folder)


def _check(model: str, layout: str, layouts: tuple[str, ...]) -> None:
    problems = []
    entry = find(model)
    if entry is None or entry.id != SCHNELL_ID:
        problems.append(
            FieldProblem("MODEL", f"must be {SCHNELL_ID}, the only model that can be downloaded; it is {model[:60]}")
        )
    if layout not in layouts:
        problems.append(FieldProblem("--layout", f"must be one of {', '.join(layouts)}; it is {layout[:60]}"))
    if problems:
        raise InvalidRequest(*problems)
