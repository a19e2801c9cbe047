"""`allaprima generate`: generates images without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.interrupts import kept_interrupts
from allaprima.cli.options import Device, PrecisionName, TokenizerDir, read_settings

if TYPE_CHECKING:
    from allaprima.cli.generate_arguments import GivenArguments

EXAMPLES = """Examples:

allaprima generate "a t-rex on a beach" -o trex.png

allaprima generate "a pizza, yellow background" -o pizza.png --size 512x512 --seed 7

allaprima generate --like trex.png --seed 8"""


Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="Output file (.png, .jpg or .webp), folder, or - for stdout. An existing file is kept.",
        show_default="a file named after the prompt and the seed",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 32 from 64 to 1536.", show_default="1024x768"),
]
Model = Annotated[
    str | None,
    typer.Option(help="Name, folder or file of a model, or NAME=PATH to name it in the image.", show_default="sketch"),
]
PromptsFile = Annotated[
    str | None, typer.Option(help="File with a prompt on each line, or - for stdin; # starts a comment.")
]
EarlierImage = Annotated[
    Path | None, typer.Option(help="Image whose prompt, size, steps, seed and model apply unless they are given.")
]


def generate(  # noqa: PLR0913, PLR0917 - one parameter for each option
    prompt: Annotated[
        str | None, typer.Argument(help="Description of the image; - reads it from stdin.", show_default=False)
    ] = None,
    output: Output = None,
    size: Size = None,
    width: Annotated[int | None, typer.Option(help="Width in pixels.", show_default="1024")] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels.", show_default="768")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 12.", show_default="4")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first image.", show_default="random")] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", help="Number of images, 1 to 4; image i, counted from 0, has seed + i.")
    ] = 1,
    prompts: PromptsFile = None,
    like: EarlierImage = None,
    model: Model = None,
    device: Device = None,
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Also show the first image in the terminal.")] = True,
) -> None:
    """Generate images without a server, and print the paths of the files."""
    with reported_errors():
        from allaprima.cli.generate_arguments import GivenArguments

        given = GivenArguments(prompt, prompts, like, output, size, width, height, steps, seed, count, force)
        settings = {"tokenizer_dir": tokenizer, "precision": precision, "device": device}
        written = _generate(given, model, settings)
        if show and written and sys.stdout.isatty():
            from allaprima.cli.terminal import draw

            draw(written[0], Console())


def _generate(given: GivenArguments, model: str | None, engine: dict[str, Any]) -> list[Path]:
    """Generate images and print the paths of the files, which are returned. engine: options that override settings."""
    from allaprima.cli.generate_arguments import GenerateArguments

    arguments = GenerateArguments.parse(given)
    settings = read_settings(engine=engine)
    name = model or arguments.model or "sketch"
    # The import of torch, which comes next, takes seconds.
    console.print(f"loading {name}", markup=False)
    with kept_interrupts():
        from allaprima.cli.generation import generate_files

    written = generate_files(arguments, name, settings.engine, console)
    for path in written:
        typer.echo(path)
    return written
