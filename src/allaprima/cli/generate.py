"""`allaprima generate`: generates images without a server."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import PrecisionName, TokenizerDir, read_settings

EXAMPLES = (
    'Examples: [bold]allaprima generate "a t-rex on a beach" -o trex.png[/bold] · '
    '[bold]allaprima generate "a pizza, yellow background" -o pizza.png --size 512x512 --seed 7[/bold]'
)


def generate(
    prompt: Annotated[str, typer.Argument(help="Description of the image.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file: .png, .jpg or .webp.")] = Path(
        "image.png"
    ),
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 32 from 64 to 1536.")] = "1024x768",
    steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 12.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Seed of the first image; random by default.")] = None,
    count: Annotated[int, typer.Option(help="Number of images, 1 to 4; image i, counted from 0, has seed + i.")] = 1,
    model: Annotated[str, typer.Option(help="Name, folder or file of a model.")] = "sketch",
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Also show the first image in the terminal.")] = True,
) -> None:
    """Generate images without a server, and print the paths of the files."""
    with reported_errors():
        from allaprima.cli.generate_arguments import GenerateArguments

        arguments = GenerateArguments.parse(prompt, output=output, size=size, steps=steps, seed=seed, count=count)
        settings = read_settings(engine={"tokenizer_dir": tokenizer, "precision": precision})
        # The import of torch, which comes next, takes seconds.
        console.print(f"loading {model}", markup=False)
        from allaprima.cli.generation import generate_files

        written = generate_files(arguments, model, settings.engine, console)
        for path in written:
            typer.echo(path)
        if show and sys.stdout.isatty():
            from allaprima.cli.terminal import draw

            draw(written[0], Console())
