"""Messages on stderr, and the exit status of errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from allaprima.errors import Error

#: Prints messages on stderr, so that stdout contains results only.
console = Console(stderr=True, highlight=False, soft_wrap=True)

#: Exit status of a command that failed with an `Error`.
EXIT_ERROR = 2


@contextmanager
def reported_errors() -> Iterator[None]:
    """Print an `Error` without a traceback, one line per problem, and exit with `EXIT_ERROR`."""
    try:
        yield
    except Error as exc:
        for problem in exc.problems or (exc.message,):
            console.print(f"[red]error:[/red] {escape(str(problem))}")
        raise typer.Exit(EXIT_ERROR) from exc
