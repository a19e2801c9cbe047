"""`allaprima open`: opens the playground of a running server, signed in."""

import sys
from typing import Annotated

import typer

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import DataDir, store_settings


def open_page(
    account: Annotated[
        str | None, typer.Option(help="Id or name of the account to sign in to.", show_default="the only account")
    ] = None,
    data_dir: DataDir = None,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser", help="Open the link in a browser.", show_default="--browser on a terminal"
        ),
    ] = None,
) -> None:
    """Open the playground of the running server in the browser, signed in, and print the link.

    The link signs in once, within 5 minutes.
    """
    with reported_errors():
        from allaprima.cli.browser import open_link
        from allaprima.cli.operator_client import ask_server

        settings = store_settings(data_dir)
        link = ask_server(settings, lambda operator: operator.create_sign_in_link(account))
    typer.echo(link)
    is_terminal = sys.stdout.isatty()
    is_open = (is_terminal if browser is None else browser) and open_link(link, settings.store.data_dir)
    if is_terminal:
        use = "; it signs in once, within 5 minutes" if "#" in link else ""
        console.print(f"{'opened the link in the browser' if is_open else 'open the link in a browser'}{use}")
