"""Messages on stderr, and errors as sentences with an exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from allaprima.errors import Error

#: Messages go to stderr, so that stdout carries results alone.
console = Console(stderr=True, highlight=False, soft_wrap=True)

#: Exit status of a user's mistake or of files that can't be used.
EXIT_REFUSED = 2


@contextmanager
def refusals() -> Iterator[None]:
    """Print an `Error` as one sentence a problem, without a traceback, and exit with 2."""
    try:
        yield
    except Error as exc:
        for problem in exc.problems or (exc.message,):
            console.print(f"[red]error:[/red] {escape(str(problem))}")
        raise typer.Exit(EXIT_REFUSED) from exc
