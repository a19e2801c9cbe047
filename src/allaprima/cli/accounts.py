"""`allaprima accounts`: create, list, credit and erase accounts."""

import sys
from typing import Annotated

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import AsJson, DatabaseUrl, DataDir, store_settings
from allaprima.cli.plain import PlainCommand, PlainGroup
from allaprima.domain.billing import to_usd
from allaprima.errors import FieldProblem, InvalidRequest

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Create, list, credit and erase accounts, even while a server runs.",
)


@app.command("create", cls=PlainCommand)
def create(
    name: Annotated[str, typer.Argument(help="Name of the account.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Create an account and print its id. Create its keys with `allaprima keys create --account`."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator

        created = ask_operator(
            store_settings(data_dir, database_url),
            lambda operator: operator.create_account(name),
            may_create=data_dir is not None,
        )
    typer.echo(created["id"])


@app.command("list", cls=PlainCommand)
def list_all(data_dir: DataDir = None, as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List all accounts with their balance, oldest first."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator
        from allaprima.cli.tables import print_list

        accounts = ask_operator(store_settings(data_dir, database_url), lambda operator: operator.list_accounts())
        rows = [
            (one["id"], one["name"], str(one["balance"]), f"{to_usd(one['balance']):.6f}", str(one["held"]))
            for one in accounts
        ]
        columns = ("id", "name", "balance, credits", "balance, USD", "held, credits")
        print_list(columns, rows, accounts, as_json=as_json)


@app.command("credit", cls=PlainCommand)
def credit(
    account: Annotated[str, typer.Argument(help="Id or name of the account.")],
    usd: Annotated[
        str, typer.Argument(metavar="USD", help="US dollars to add, such as 25 or 0.5; negative to withdraw.")
    ],
    note: Annotated[str | None, typer.Option(help="Note in the ledger.")] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Add US dollars to an account. This is the only way to add credits."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator

        credited = ask_operator(
            store_settings(data_dir, database_url),
            lambda operator: operator.credit_account(account, usd=usd, note=note),
        )
    balance = credited["balance"]
    console.print(f"{credited['name']} now has {balance} credits ({to_usd(balance):.6f} USD)", markup=False)


@app.command("erase", cls=PlainCommand)
def erase(
    account: Annotated[str, typer.Argument(help="Id or name of the account.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Remove an account's prompts, images and logs, and disable its keys. Its ledger and sums of usage stay."""
    with reported_errors():
        from allaprima.cli.operator_client import ask_operator

        if not yes:
            if not sys.stdin.isatty():
                raise InvalidRequest(FieldProblem("--yes", "is required without a terminal, which could ask"))
            question = f"Remove all prompts, images and logs of the account {account}? They can't be restored."
            typer.confirm(question, abort=True, err=True)
        erased = ask_operator(store_settings(data_dir, database_url), lambda operator: operator.erase_account(account))
    name = erased["account"]["name"]
    console.print(
        f"erased the account {name}: removed {erased['jobs']} jobs with their prompts, {erased['images']} images "
        f"({erased['image_bytes']:,} bytes), {erased['logged_requests']} log entries, "
        f"{erased['idempotency_records']} idempotency records and {erased['webhook_endpoints']} webhook endpoints; "
        f"disabled {erased['keys_disabled']} keys",
        markup=False,
    )
    console.print(
        f"kept {erased['ledger_entries']} ledger entries and {erased['usage_sums']} sums of usage, which contain no "
        "prompts, and the names of the account and of its keys",
        markup=False,
    )
