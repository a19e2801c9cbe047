"""`allaprima keys`: create, list and revoke API keys."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import AsJson, DatabaseUrl, DataDir, store_settings
from allaprima.cli.plain import PlainCommand, PlainGroup

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Create, list and revoke API keys, even while a server runs.",
)


@app.command("create", cls=PlainCommand)
def create(
    data_dir: DataDir = None,
    name: Annotated[str | None, typer.Option(help="Name of the key.")] = None,
    account: Annotated[
        str | None, typer.Option(help="Id or name of the key's account.", show_default="the first account")
    ] = None,
    management: Annotated[
        bool, typer.Option("--management", help="Create a key that manages keys and can't generate images.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Create a key and print it. It can't be shown again."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator

        settings = store_settings(data_dir, database_url)
        folder = settings.store.data_dir.absolute()
        is_shared = settings.store.database_url is not None
        is_new = not is_shared and not folder.exists()
        created = ask_operator(
            settings,
            lambda operator: operator.create_key(name=name, account=account, is_management=management),
            may_create=data_dir is not None,
        )
    if is_new:
        console.print(f"created the data folder {folder}", markup=False)
    place = "the database" if is_shared else folder
    console.print(f"created the key {created['prefix']} in {place}; it is shown only once:", markup=False)
    typer.echo(created["key"])


@app.command("list", cls=PlainCommand)
def list_all(data_dir: DataDir = None, as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List all keys, oldest first."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator
        from allaprima.cli.tables import print_list

        keys = ask_operator(store_settings(data_dir, database_url), lambda operator: operator.list_keys())
        rows = [
            (
                key["prefix"],
                key["name"] or "",
                datetime.fromtimestamp(key["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "management" if key["is_management"] else "ordinary",
                _state(key),
            )
            for key in keys
        ]
        print_list(("prefix", "name", "created", "kind", "state"), rows, keys, as_json=as_json)


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    return "disabled" if key["is_disabled"] else "valid"


@app.command("revoke", cls=PlainCommand)
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, the 8 characters after `ap_`.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key. Further requests with it are refused."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator

        ask_operator(store_settings(data_dir, database_url), lambda operator: operator.revoke_key(prefix))
    console.print(f"revoked the key {prefix}", markup=False)
