"""The command line: parse, call, print. Whatever is heavy is imported inside the command that needs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from allaprima import __version__
from allaprima.errors import Error, InvalidRequest

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Text to image in the manner of the hosted flux/schnell endpoint, on your own machine.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys, also while a server runs.")
app.add_typer(keys_app, name="keys")
accounts_app = typer.Typer(no_args_is_help=True, help="Make, list and pay into accounts, also while a server runs.")
app.add_typer(accounts_app, name="accounts")

#: Words go to stderr, so that stdout carries results alone.
words = Console(stderr=True, highlight=False, soft_wrap=True)

#: Exit status of a user's mistake or of files that can't be used.
EXIT_REFUSED = 2

DataDir = Annotated[Path | None, typer.Option(help="Folder of the database, the images and the secrets.")]
ModelPaths = Annotated[
    list[Path] | None,
    typer.Option("--model", help="Folder or file of a model to load beside sketch; may be repeated."),
]
TokenizerDir = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of FLUX's tokenizers, for files that bring none.")
]


PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="How the numbers are kept: fp32, bf16, fp8, int8, int8wo or int4wo.",
        show_default="bf16 where it fits, else int8",
    ),
]


@contextmanager
def _refusals() -> Iterator[None]:
    """Say an error of ours in a sentence and exit with 2; no traceback for a user's mistake."""
    try:
        yield
    except Error as exc:
        problems = exc.problems if isinstance(exc, InvalidRequest) and exc.problems else (exc.message,)
        for problem in problems:
            words.print(f"[red]error:[/red] {str(problem).replace('[', chr(92) + '[')}")
        raise typer.Exit(EXIT_REFUSED) from exc


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _settings(
    data_dir: Path | None = None,
    models: list[Path] | None = None,
    tokenizer_dir: Path | None = None,
    stand_in: bool | None = None,
    precision: str | None = None,
    **server: Any,
) -> Any:
    """Return the settings with what the command line says laid over them."""
    from allaprima.settings import load_settings

    groups: dict[str, dict[str, Any]] = {}
    if data_dir is not None:
        groups["store"] = {"data_dir": data_dir}
    given = {
        "models": tuple(map(str, models)) if models else None,
        "tokenizer_dir": tokenizer_dir,
        "has_stand_in": stand_in,
        "precision": precision,
    }
    if engine := {name: value for name, value in given.items() if value is not None}:
        groups["engine"] = engine
    if chosen := {name: value for name, value in server.items() if value is not None}:
        groups["server"] = chosen
    return load_settings(**groups)


@app.command(
    epilog='Examples: [bold]allaprima generate "a t-rex on a beach" -o trex.png[/bold] · '
    '[bold]allaprima generate "a pizza, yellow background" -o pizza.png --size 512x512 --seed 7[/bold]'
)
def generate(
    prompt: Annotated[str, typer.Argument(help="What to paint.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp.")] = Path(
        "image.png"
    ),
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, each a multiple of 32 from 64 to 1536.")] = "1024x768",
    steps: Annotated[int, typer.Option(help="Steps of the flow, 1 to 12.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Seed of the first image; drawn if absent.")] = None,
    count: Annotated[int, typer.Option(help="Number of images, 1 to 4; image i has seed + i.")] = 1,
    model: Annotated[str, typer.Option(help="Folder or file of a model, or the built-in model's name.")] = "sketch",
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Also draw the picture in the terminal.")] = True,
) -> None:
    """Paint a picture here and now, without a server."""
    with _refusals():
        from allaprima.cli.generate import Job, paint

        job = Job.parse(prompt, output=output, size=size, steps=steps, seed=seed, count=count)
        written = paint(job, model, words, _settings(tokenizer_dir=tokenizer, precision=precision).engine)
        for path in written:
            typer.echo(path)
        if show and sys.stdout.isatty():
            from allaprima.cli.terminal import draw

            draw(written[0], Console())


@app.command(
    epilog="Examples: [bold]allaprima serve[/bold] · [bold]allaprima serve --host 0.0.0.0 --port 80 "
    "--public-url https://paint.example.org[/bold]"
)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.", show_default="8000")] = None,
    data_dir: DataDir = None,
    model: ModelPaths = None,
    tokenizer: TokenizerDir = None,
    precision: PrecisionName = None,
    public_url: Annotated[str | None, typer.Option(help="What image links start with.")] = None,
    stand_in: Annotated[
        bool | None,
        typer.Option(
            "--stand-in/--no-stand-in", help="Let the built-in model paint for flux/schnell.", show_default="--stand-in"
        ),
    ] = None,
) -> None:
    """Serve the API."""
    with _refusals():
        from allaprima.cli.serve import run

        chosen = _settings(data_dir, model, tokenizer, stand_in, precision, host=host, port=port, public_url=public_url)
        run(chosen, words)


@keys_app.command("create")
def keys_create(
    data_dir: DataDir = None,
    name: Annotated[str | None, typer.Option(help="What to call the key.")] = None,
    account: Annotated[str | None, typer.Option(help="Id or name of its account.", show_default="the first")] = None,
    management: Annotated[bool, typer.Option("--management", help="It manages keys, and paints nothing.")] = False,
) -> None:
    """Make a key; it alone is printed on stdout, and never again."""
    with _refusals():
        from allaprima.api.operator import NewKey
        from allaprima.cli.operator import open_operator

        with open_operator(_settings(data_dir)) as operator:
            made = operator.create_key(NewKey(name=name, account=account, is_management=management))
    words.print(f"made the key {made['prefix']}; it is shown only now:")
    typer.echo(made["key"])


@keys_app.command("list")
def keys_list(data_dir: DataDir = None) -> None:
    """List all keys, oldest first."""
    with _refusals():
        from datetime import UTC, datetime

        from allaprima.cli.operator import open_operator

        with open_operator(_settings(data_dir)) as operator:
            rows = operator.list_keys()
    table = Table("prefix", "name", "created", "kind", "state")
    for row in rows:
        created = datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
        kind = "management" if row["is_management"] else "ordinary"
        state = "revoked" if row["revoked_at"] else "disabled" if row["is_disabled"] else "good"
        table.add_row(row["prefix"], Text(row["name"] or ""), created, kind, state)
    Console().print(table)


@keys_app.command("revoke")
def keys_revoke(
    prefix: Annotated[str, typer.Argument(help="The key's 8-character prefix.")], data_dir: DataDir = None
) -> None:
    """Make a key useless from the next request on."""
    with _refusals():
        from allaprima.cli.operator import open_operator

        with open_operator(_settings(data_dir)) as operator:
            operator.revoke_key(prefix)
    words.print(f"revoked the key {prefix}")


@accounts_app.command("create")
def accounts_create(
    name: Annotated[str, typer.Argument(help="What to call the account.")], data_dir: DataDir = None
) -> None:
    """Make an account; its id is printed on stdout. Give it keys with `keys create --account`."""
    with _refusals():
        from allaprima.cli.operator import open_operator

        with open_operator(_settings(data_dir)) as operator:
            typer.echo(operator.create_account(name)["id"])


@accounts_app.command("list")
def accounts_list(data_dir: DataDir = None) -> None:
    """List all accounts with their balance, oldest first."""
    with _refusals():
        from allaprima.cli.operator import open_operator
        from allaprima.domain.billing import to_usd

        with open_operator(_settings(data_dir)) as operator:
            rows = operator.list_accounts()
    table = Table("id", "name", "balance, credits", "balance, USD", "held back, credits")
    for row in rows:
        usd = f"{to_usd(row['balance']):.6f}"
        table.add_row(row["id"], Text(row["name"]), str(row["balance"]), usd, str(row["held"]))
    Console().print(table)


@accounts_app.command("credit")
def accounts_credit(
    account: Annotated[str, typer.Argument(help="Id or name of the account.")],
    usd: Annotated[float, typer.Argument(help="US dollars to pay in; below zero: to take out.")],
    note: Annotated[str | None, typer.Option(help="A word for the ledger.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Pay into an account; credits come in no other way."""
    with _refusals():
        from allaprima.cli.operator import open_operator
        from allaprima.domain.billing import to_credits, to_usd

        with open_operator(_settings(data_dir)) as operator:
            paid = operator.credit(account, to_credits(usd), note)
    words.print(f"{paid['name']} has {paid['balance']} credits now ({to_usd(paid['balance']):.6f} USD)", markup=False)


@app.command(
    epilog="Examples: [bold]allaprima pull flux/schnell[/bold] · [bold]allaprima pull flux/schnell --layout bf16[/bold]"
)
def pull(
    model: Annotated[str, typer.Argument(help="The model's name: flux/schnell.")] = "flux/schnell",
    layout: Annotated[str, typer.Option(help="bf16 (as published), fp8, gguf-q8 or gguf-q4.")] = "gguf-q8",
) -> None:
    """Fetch the files of flux/schnell from the hub; what was broken off goes on."""
    with _refusals():
        from allaprima.cli.pull import pull_model

        typer.echo(pull_model(model, layout, _settings().engine, words))


@app.command()
def models() -> None:
    """List the models that allaprima knows, and which of them are here."""
    with _refusals():
        from allaprima.bootstrap import open_models
        from allaprima.domain.models import CATALOG, SKETCH_ID
        from allaprima.weights.paths import default_folder, pulled_folders

        engine = _settings().engine
        weights_dir = engine.weights_dir or default_folder()
        here_ids = {files.id for files in open_models(engine)}
        table = Table("id", "also called", "what", "weights")
        for entry in CATALOG:
            is_here = "here" if entry.id in here_ids else "not here; sketch stands in"
            if entry.id not in here_ids and pulled_folders(weights_dir, entry.id):
                is_here = f"pulled; serve it with --model {entry.id}"
            here = "in the package" if entry.id == SKETCH_ID else is_here
            table.add_row(entry.id, ", ".join(entry.aliases), entry.description, here)
        Console().print(table)


@app.command()
def doctor() -> None:
    """Say what hardware and models are here, and what is missing, in words."""
    with _refusals():
        from allaprima.cli.doctor import GIB, examine, precision_rows
        from allaprima.weights.paths import default_folder

        engine = _settings().engine
        findings = examine(engine.weights_dir or default_folder())
        for finding in findings:
            mark = "[green]ok[/green]     " if finding.is_good else "[red]missing[/red]"
            Console(highlight=False, soft_wrap=True).print(f"{mark} [bold]{finding.name}[/bold]: {finding.words}")
        table = Table("precision", "weights, GiB", "memory, GiB", "here", title=f"flux/schnell on {engine.device}")
        for row in precision_rows(engine.device):
            table.add_row(row.precision, f"{row.weights / GIB:.1f}", f"{row.memory / GIB:.1f}", row.words)
        Console().print(table)
    if not all(finding.is_good for finding in findings if finding.is_needed):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
