"""The conditions of `allaprima serve --no-auth`, checked before anything is loaded."""

import asyncio
from collections.abc import Sequence

from allaprima.bootstrap.operator import has_data, open_operator
from allaprima.domain.accounts import Account
from allaprima.domain.addresses import is_loopback_name
from allaprima.domain.database_url import SETTING
from allaprima.errors import SettingsError
from allaprima.service.accounts.no_auth import require_single_account
from allaprima.settings import ServerSettings, Settings


def check_no_auth(settings: Settings) -> None:
    """Raise `SettingsError` if requests without a key could come from other machines, or concern several accounts.

    Raises `StoreError` for a data folder that can't be used.
    """
    if (problem := _problem(settings.server)) is not None:
        raise SettingsError(f"--no-auth {problem}")
    if settings.store.database_url is not None:
        raise SettingsError(
            f"--no-auth can't be combined with {SETTING}, because other servers and commands change the accounts of "
            "that database; start without it, and create a key with `allaprima keys create`"
        )
    if has_data(settings.store.data_dir):
        require_single_account(asyncio.run(_accounts(settings)))


def _problem(server: ServerSettings) -> str | None:
    if not is_loopback_name(f"[{server.host}]" if ":" in server.host else server.host):
        return (
            "is allowed on a loopback address alone, such as 127.0.0.1, since everyone who reaches the server could "
            f"use it; --host is {server.host}"
        )
    if server.public_url is not None:
        return (
            f"can't be combined with --public-url, because the server refuses other machines; it is {server.public_url}"
        )
    if server.trusted_proxies:
        return "can't be combined with ALLAPRIMA_SERVER__TRUSTED_PROXIES, because the server refuses proxies"
    if server.cors_origins not in ((), ("*",)):
        return "can't be combined with ALLAPRIMA_SERVER__CORS_ORIGINS, because the server refuses other web pages"
    return None


async def _accounts(settings: Settings) -> Sequence[Account]:
    async with open_operator(settings) as operator:
        return await operator.account_records.all()
