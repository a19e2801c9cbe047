"""`allaprima models`: lists the known models and the location of their weights."""

from rich.console import Console
from rich.table import Table

from allaprima.cli.errors import reported_errors
from allaprima.cli.options import read_settings


def models() -> None:
    """List the known models, and whether their weights are on this machine."""
    with reported_errors():
        from allaprima.domain.models import CATALOG, SKETCH_ID
        from allaprima.weights.paths import default_folder, pulled_folders
        from allaprima.weights.roster import open_roster

        settings = read_settings().engine
        weights_dir = settings.weights_dir or default_folder()
        roster = open_roster(settings.models, settings.tokenizer_dir, weights_dir)
        configured = {model.id for model in roster.models}
    table = Table("id", "aliases", "description", "weights")
    for entry in CATALOG:
        if entry.id == SKETCH_ID:
            where = "in the package"
        elif entry.id in configured:
            where = "on this machine"
        elif pulled_folders(weights_dir, entry.id):
            where = f"downloaded; serve them with --model {entry.id}"
        else:
            where = "missing; sketch is the fallback"
        table.add_row(entry.id, ", ".join(entry.aliases), entry.description, where)
    Console().print(table)
