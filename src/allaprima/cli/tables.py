"""Prints lists: a table on a terminal, tab-separated lines in a pipe, or JSON."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_list(
    columns: Sequence[str], rows: Sequence[Sequence[str]], records: Sequence[dict[str, Any]], *, as_json: bool
) -> None:
    """Print rows of text, or the records that they show as JSON. Every value is printed whole."""
    if as_json:
        typer.echo(json.dumps(list(records), indent=2, ensure_ascii=False))
    elif not sys.stdout.isatty():
        for row in rows:
            typer.echo(plain_line(row))
    else:
        table = Table(*columns)
        for column in table.columns:
            # A narrow terminal breaks a value into lines, and cuts none.
            column.overflow = "fold"
        # The first column has what other commands take as arguments.
        table.columns[0].no_wrap = max((len(row[0]) for row in rows), default=0) <= Console().width // 2
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> None:
    """Print a part of a message: a table on a terminal, else its title and tab-separated lines."""
    if console.is_terminal:
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    for line in (*([title] if title else []), *map(plain_line, rows)):
        # `print` of a console expands tabs.
        console.file.write(f"{line}\n")


def plain_line(row: Sequence[str]) -> str:
    """Return the values of a row as one line."""
    return "\t".join(" ".join(value.split()) for value in row)
