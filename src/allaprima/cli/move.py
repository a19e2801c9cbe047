"""`allaprima move`: copies a data folder into PostgreSQL and a bucket."""

from typing import Annotated

import typer
from rich.markup import escape

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.interrupts import kept_interrupts
from allaprima.cli.options import DatabaseUrl, DataDir, read_settings

EXAMPLES = """Example:

allaprima move --data-dir data --database-url postgresql://allaprima@db.example/allaprima --bucket s3://images/prod"""


def move(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="Bucket of the images: s3://bucket/prefix?endpoint=...&region=...",
            show_default="the images stay in the data folder",
            metavar="URL",
        ),
    ] = None,
) -> None:
    """Copy a data folder, which no server uses, into PostgreSQL and a bucket; exit with 1 if they differ then."""
    with reported_errors():
        settings = read_settings(store={"data_dir": data_dir, "database_url": database_url, "bucket": bucket})
        with kept_interrupts():
            import asyncio

            from allaprima.bootstrap.move import image_place, move_folder, place
            from allaprima.cli.tables import print_list
        moved = asyncio.run(move_folder(settings, lambda line: console.print(line, markup=False)))
    rows = [(one.name, one.folder, one.target, "equal" if one.is_equal else "DIFFERENT") for one in moved.checks]
    print_list(("what", "folder", "target", "result"), rows, [], as_json=False)
    for problem in moved.problems:
        console.print(f"[red]error:[/red] {escape(problem)}")
    if moved.problems:
        console.print("the data folder is not marked as moved", markup=False)
        raise typer.Exit(1)
    console.print(f"moved {settings.store.data_dir} to {place(settings)}", markup=False)
    if settings.store.bucket is None:
        console.print(
            f"the images stay in {image_place(settings)}: every server needs this data folder as its --data-dir",
            markup=False,
        )
