"""`allaprima serve`: runs the server."""

from typing import Annotated

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.interrupts import kept_interrupts
from allaprima.cli.options import DatabaseUrl, DataDir, ModelPaths, PrecisionName, TokenizerDir, read_settings

EXAMPLES = """Examples:

allaprima serve --open

allaprima serve --host 0.0.0.0 --port 80 --public-url https://images.example.org"""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 picks a free one.", show_default="8000")
    ] = None,
    data_dir: DataDir = None,
    model: ModelPaths = None,
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    public_url: Annotated[str | None, typer.Option(help="Base URL of image links.")] = None,
    fallback: Annotated[
        bool | None,
        typer.Option(
            "--fallback/--no-fallback",
            help="Let the built-in model serve flux/schnell if its weights are missing.",
            show_default="--fallback",
        ),
    ] = None,
    auth: Annotated[
        bool | None,
        typer.Option(
            "--auth/--no-auth",
            help="Require a key. Without one, only programs and pages on this machine are served: on a loopback "
            "address, for a single account.",
            show_default="--auth",
        ),
    ] = None,
    opens: Annotated[
        bool, typer.Option("--open", help="Open the playground in the browser, signed in, when the server is ready.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Run the server: the API at /v1, its reference at /docs and the playground at /."""
    with reported_errors():
        settings = read_settings(
            store={"data_dir": data_dir, "database_url": database_url},
            engine={
                "models": tuple(model) if model else None,
                "tokenizer_dir": tokenizer,
                "has_fallback": fallback,
                "precision": precision,
            },
            server={"host": host, "port": port, "public_url": public_url, "requires_key": auth},
        )
        if not settings.server.requires_key:
            from allaprima.cli.no_auth import check_no_auth

            check_no_auth(settings)
        if settings.store.database_url is not None:
            from allaprima.cli.operator_client import check_database

            check_database(settings)
        # The import of torch, which comes next, takes seconds.
        console.print("allaprima starts")
        with kept_interrupts():
            from allaprima.cli.server import run

        run(settings, console, opens_browser=opens)
