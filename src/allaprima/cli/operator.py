"""What an operator does to accounts and keys: through the running server where there is one, else on their folder."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx2

from allaprima import bootstrap
from allaprima.api.operator import SOCKET_FILE, NewKey, create_key, show_account, show_key
from allaprima.errors import AccountNotFound, KeyNotFound, StoreLocked, StoreUnreachable
from allaprima.service.app import OperatorService
from allaprima.settings import Settings

T = TypeVar("T")

#: Longest path that a Unix socket may have, with some room.
MAX_SOCKET_PATH = 100
#: How long a server that holds the folder may take to open its door.
PATIENCE_S = 10.0


def socket_path(data_dir: Path) -> Path:
    """Return where the door of a data folder is: in it, or, where the path is too long, among the temporary files."""
    path = (data_dir / SOCKET_FILE).resolve()
    if len(str(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"allaprima-{name}.sock"


class Operator(Protocol):
    """Works on accounts and keys; each answer is plain values, as `api.admin` shows them."""

    def create_key(self, wanted: NewKey) -> dict[str, Any]:
        """Return the new key under `key`, with its prefix and name. Raises `AccountNotFound`."""

    def list_keys(self) -> list[dict[str, Any]]:
        """Return all keys, oldest first, without the keys themselves."""

    def revoke_key(self, prefix: str) -> None:
        """Revoke a key. Raises `KeyNotFound`."""

    def create_account(self, name: str) -> dict[str, Any]:
        """Return the new account."""

    def list_accounts(self) -> list[dict[str, Any]]:
        """Return all accounts, oldest first; money in credits."""

    def credit(self, account: str, credits_: int, note: str | None) -> dict[str, Any]:
        """Pay into an account, or take out of it; return it as it is then. Raises `AccountNotFound`."""


@contextmanager
def open_operator(settings: Settings) -> Iterator[Operator]:
    """Reach the accounts and keys of the configured data folder.

    Raises `StoreUnreachable` when a server holds the folder and does not answer.
    """
    deadline = time.monotonic() + PATIENCE_S
    local = LocalOperator(settings)
    while True:
        try:
            local.list_keys()
        except StoreLocked as locked:
            door = socket_path(settings.store.data_dir)
            transport = httpx2.HTTPTransport(uds=str(door))
            with httpx2.Client(transport=transport, base_url="http://allaprima", timeout=30) as client:
                try:
                    client.get("/keys")
                except httpx2.TransportError as exc:
                    if time.monotonic() > deadline:
                        raise StoreUnreachable(f"{locked.message}, but does not answer at {door}") from exc
                    time.sleep(0.1)
                    continue
                yield RemoteOperator(client)
        else:
            yield local
        return


class LocalOperator:
    """Works on the data folder itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create_key(self, wanted: NewKey) -> dict[str, Any]:
        """See `Operator`."""
        return self._run(lambda operator: create_key(operator, wanted))

    def list_keys(self) -> list[dict[str, Any]]:
        """See `Operator`."""

        async def list_all(operator: OperatorService) -> list[dict[str, Any]]:
            return [show_key(row) for row in await operator.keys.all()]

        return self._run(list_all)

    def revoke_key(self, prefix: str) -> None:
        """See `Operator`."""
        self._run(lambda operator: operator.keys.revoke(prefix))

    def create_account(self, name: str) -> dict[str, Any]:
        """See `Operator`."""

        async def create(operator: OperatorService) -> dict[str, Any]:
            return show_account(await operator.accounts.create(name))

        return self._run(create)

    def list_accounts(self) -> list[dict[str, Any]]:
        """See `Operator`."""

        async def list_all(operator: OperatorService) -> list[dict[str, Any]]:
            return [show_account(account) for account in await operator.accounts.all()]

        return self._run(list_all)

    def credit(self, account: str, credits_: int, note: str | None) -> dict[str, Any]:
        """See `Operator`."""

        async def pay(operator: OperatorService) -> dict[str, Any]:
            found = await operator.accounts.find(account)
            return show_account(await operator.accounts.credit(found.id, credits_, note))

        return self._run(pay)

    def _run(self, work: Callable[[OperatorService], Coroutine[Any, Any, T]]) -> T:
        async def open_and_work() -> T:
            async with bootstrap.open_operator(self._settings) as operator:
                return await work(operator)

        return asyncio.run(open_and_work())


class RemoteOperator:
    """Asks the running server."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def create_key(self, wanted: NewKey) -> dict[str, Any]:
        """See `Operator`."""
        made: dict[str, Any] = self._ask("POST", "/keys", wanted.model_dump())
        return made

    def list_keys(self) -> list[dict[str, Any]]:
        """See `Operator`."""
        rows: list[dict[str, Any]] = self._ask("GET", "/keys")
        return rows

    def revoke_key(self, prefix: str) -> None:
        """See `Operator`."""
        self._ask("DELETE", f"/keys/{quote(prefix, safe='')}")

    def create_account(self, name: str) -> dict[str, Any]:
        """See `Operator`."""
        made: dict[str, Any] = self._ask("POST", "/accounts", {"name": name})
        return made

    def list_accounts(self) -> list[dict[str, Any]]:
        """See `Operator`."""
        rows: list[dict[str, Any]] = self._ask("GET", "/accounts")
        return rows

    def credit(self, account: str, credits_: int, note: str | None) -> dict[str, Any]:
        """See `Operator`."""
        path = f"/accounts/{quote(account, safe='')}/credits"
        paid: dict[str, Any] = self._ask("POST", path, {"credits": credits_, "note": note})
        return paid

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._client.request(method, path, json=body)
        if answer.status_code == 404:
            error = answer.json()
            kinds = {kind.code: kind for kind in (KeyNotFound, AccountNotFound)}
            raise kinds[error["error"]["code"]](error["message"])
        return answer.raise_for_status().json()
