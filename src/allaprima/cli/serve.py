"""`allaprima serve`: the API."""

from typing import Annotated

import typer

from allaprima.cli.options import DataDir, ModelPaths, PrecisionName, TokenizerDir, read_settings
from allaprima.cli.refusals import console, refusals

EXAMPLES = (
    "Examples: [bold]allaprima serve[/bold] · [bold]allaprima serve --host 0.0.0.0 --port 80 "
    "--public-url https://images.example.org[/bold]"
)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.", show_default="8000")] = None,
    data_dir: DataDir = None,
    model: ModelPaths = None,
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    public_url: Annotated[str | None, typer.Option(help="What image URLs start with.")] = None,
    fallback: Annotated[
        bool | None,
        typer.Option(
            "--fallback/--no-fallback",
            help="Let the built-in model serve flux/schnell when its weights are missing.",
            show_default="--fallback",
        ),
    ] = None,
) -> None:
    """Serve the API."""
    with refusals():
        settings = read_settings(
            store={"data_dir": data_dir},
            engine={
                "models": tuple(map(str, model)) if model else None,
                "tokenizer_dir": tokenizer,
                "has_fallback": fallback,
                "precision": precision,
            },
            server={"host": host, "port": port, "public_url": public_url},
        )
        # The import of torch, which comes next, takes seconds.
        console.print("allaprima starts")
        from allaprima.cli.server import run

        run(settings, console)
