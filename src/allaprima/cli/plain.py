"""Help and refusals of the command line as plain text, which any width of terminal and any pipe can show."""

import shutil
import sys
from difflib import get_close_matches
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from allaprima.cli.errors import EXIT_ERROR, console

#: Widest help, in characters.
MAX_WIDTH = 100
#: Longest sentence that describes a command in a list, in characters.
MAX_SENTENCE = 1000
#: Commands of other programs, and what they are called here.
_NEAREST = {
    "help": "--help",
    "version": "--version",
    "list": "models",
    "ls": "models",
    "run": "generate",
    "create": "generate",
    "image": "generate",
    "start": "serve",
    "server": "serve",
    "download": "pull",
    "remove": "rm",
    "delete": "rm",
    "info": "show",
    "status": "ps",
    "login": "open",
    "check": "doctor",
    "key": "keys",
    "account": "accounts",
}


def _help(ctx: Any, write: Any) -> str:
    """Return the help that `write` writes, in the width of the terminal. The default formatter takes 50 at least."""
    formatter = ctx.make_formatter()
    formatter.width = max(20, min(MAX_WIDTH, shutil.get_terminal_size().columns) - 2)
    # A long option has a line of its own, so that the descriptions of a narrow terminal have room.
    formatter.write_dl = partial(formatter.write_dl, col_max=min(30, formatter.width // 3))
    write(ctx, formatter)
    return str(formatter.getvalue()).rstrip("\n")


class PlainCommand(TyperCommand):
    """A command."""

    def get_help(self, ctx: Any) -> str:
        """Return the help."""
        return _help(ctx, self.format_help)


class PlainGroup(TyperGroup):
    """A group of commands, which refuses what it does not know in one line, with the nearest command."""

    def get_help(self, ctx: Any) -> str:
        """Return the help."""
        return _help(ctx, self.format_help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(self._refusal(ctx, name))
        return super().resolve_command(ctx, args)

    def _refusal(self, ctx: Any, name: str) -> str:
        known = [*self.commands, *(_NEAREST if ctx.parent is None else ())]
        near = [_NEAREST.get(one, one) if one not in self.commands else one for one in _close(name, known)]
        hint = " or ".join(f"`{ctx.command_path} {one}`" for one in dict.fromkeys(near))
        return f"no command `{name[:60]}`" + (f"; did you mean {hint}?" if hint else "")

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the library passes it
        """Write the commands, each with the whole first sentence of its help."""
        rows = [(name, command.get_short_help_str(MAX_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command line, and exit with its status, except where `standalone_mode` is false."""
        if not more.get("standalone_mode", True):
            return super().main(*args, **more)
        try:
            status = super().main(*args, **more | {"standalone_mode": False})
        except TyperException as exc:
            _print_refusal(exc)
            sys.exit(EXIT_ERROR)
        except Abort:
            console.print("aborted")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _close(name: str, known: list[str]) -> list[str]:
    exact = [one for one in known if one == name.lower()]
    return exact or get_close_matches(name.lower(), known, n=2)


def _print_refusal(error: TyperException) -> None:
    """Print why the arguments can't be used, and how to see which can. Help alone is printed as it is."""
    message, ctx = error.format_message(), getattr(error, "ctx", None)
    if message.startswith("Usage:"):
        console.print(message, markup=False)
        return
    # The words of the library that parses numbers.
    message = message.replace(": Input should be", ": must be").partition(", unable to parse")[0]
    if message.startswith("Got unexpected extra argument"):
        message = f"{message.removesuffix('.')}; put an argument of several words in quotes"
    console.print(f"error: {message[:1].lower()}{message[1:].removesuffix('.')}", markup=False)
    if ctx is not None:
        console.print(f"see: {ctx.command_path} --help", markup=False)
