"""The `allaprima` command with all its subcommands."""

import io
import sys
from typing import Annotated

import typer

from allaprima import __version__
from allaprima.cli import accounts, doctor, generate, keys, models, pull, serve
from allaprima.cli import open as opening

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Text-to-image generation on your own machine, compatible with the hosted flux/schnell endpoint.",
)
app.command(epilog=generate.EXAMPLES)(generate.generate)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command("open")(opening.open_page)
app.command(epilog=pull.EXAMPLES)(pull.pull)
app.command()(models.models)
app.command()(models.show)
app.command("rm")(models.remove)
app.command()(models.ps)
app.command()(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(accounts.app, name="accounts")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Add the options that apply without a command."""


def main() -> None:
    """Run the command line. Ctrl-C exits with 130, which is 128 + SIGINT."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a character shows its escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
