"""The `allaprima` command with all its subcommands."""

import io
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from allaprima import __version__
from allaprima.cli import accounts, doctor, generate, keys, migrate, models, move, pull, serve
from allaprima.cli import open as opening
from allaprima.cli.plain import PlainCommand, PlainGroup

#: Exit status of a command that was interrupted: 128 + SIGINT.
INTERRUPTED = 130

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Text-to-image generation on your own machine, compatible with the hosted flux/schnell endpoint.",
)
app.command(cls=PlainCommand, epilog=generate.EXAMPLES)(generate.generate)
app.command(cls=PlainCommand, epilog=serve.EXAMPLES)(serve.serve)
app.command("open", cls=PlainCommand)(opening.open_page)
app.command(cls=PlainCommand, epilog=pull.EXAMPLES)(pull.pull)
app.command(cls=PlainCommand)(models.models)
app.command(cls=PlainCommand)(models.show)
app.command("rm", cls=PlainCommand)(models.remove)
app.command(cls=PlainCommand)(models.ps)
app.command(cls=PlainCommand)(doctor.doctor)
app.command(cls=PlainCommand)(migrate.migrate)
app.command(cls=PlainCommand, epilog=move.EXAMPLES)(move.move)
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
    """Run the command line. Ctrl-C exits with 130."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a character shows its escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        _exit_interrupted()
    except SystemExit as exc:
        if exc.code == INTERRUPTED:
            _exit_interrupted()
        raise


def _exit_interrupted() -> NoReturn:
    """Exit with 130 at once. CPython would kill the process instead if `exec` of a string was interrupted."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(INTERRUPTED)
