"""`allaprima pull`: show what will be fetched and under which licence, fetch it, say how to use it."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from allaprima.domain.models import SCHNELL_ID, find
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.settings import EngineSettings
from allaprima.weights.hub import LAYOUTS, plan_pull, pull
from allaprima.weights.paths import default_folder


def pull_model(model: str, layout: str, settings: EngineSettings, words: Console) -> Path:
    """Fetch a layout of FLUX.1 [schnell] and return its folder.

    Raises `InvalidRequest` for another model or layout, and what `plan_pull` and `pull` raise.
    """
    problems = []
    entry = find(model)
    if entry is None or entry.id != SCHNELL_ID:
        problems.append(FieldProblem("MODEL", f"must be {SCHNELL_ID}, the only model to pull; it is {model[:60]}"))
    if layout not in LAYOUTS:
        problems.append(FieldProblem("--layout", f"must be one of {', '.join(LAYOUTS)}; it is {layout[:60]}"))
    if problems:
        raise InvalidRequest(*problems)
    plan = plan_pull(layout, settings.weights_dir or default_folder())
    table = Table("from", "licence", "files", "GB")
    for repo, licence in plan.licences.items():
        files = [file for file in plan.files if file.repo == repo]
        table.add_row(repo, licence, str(len(files)), f"{sum(file.size for file in files) / 1e9:.2f}")
    words.print(table)
    words.print(
        f"{plan.size / 1e9:.2f} GB in all, {plan.missing / 1e9:.2f} GB to fetch, into {plan.folder}", markup=False
    )
    pull(plan, lambda file: words.print(f"{file.repo}: {file.name}", markup=False))
    words.print(f"{SCHNELL_ID} is here: allaprima serve --model {SCHNELL_ID}", markup=False)
    return plan.folder
