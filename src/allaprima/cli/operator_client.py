"""Client of the operator's API: connects to a running server's socket, or runs the API in this process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import httpx2

from allaprima.api.operator import create_operator_app
from allaprima.bootstrap.operator import open_operator, require_data
from allaprima.cli.operator_socket import find_socket, is_listening
from allaprima.cli.texts import decoded
from allaprima.errors import Error, SettingsError, StoreLocked, StoreUnreachable
from allaprima.settings import Settings

T = TypeVar("T")

#: Longest wait for the socket of a server that uses the data folder, in seconds.
CONNECT_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.1
RESPONSE_TIMEOUT_S = 30.0
#: The same for an erasure, which removes files and rewrites the database.
ERASURE_TIMEOUT_S = 3600.0


class OperatorClient:
    """One method per operation of the operator's API. Each raises the `Error` that the API returns.

    Records are JSON values, in the form that `api.operator` documents.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def create_key(
        self, *, name: str | None = None, account: str | None = None, is_management: bool = False
    ) -> dict[str, Any]:
        """Create a key; return its record, which contains the key as `key`. account: id or name; None: the first."""
        body = {"name": name, "account": account, "is_management": is_management}
        return await self._send("POST", "/keys", body)

    async def list_keys(self) -> list[dict[str, Any]]:
        """Return all keys, oldest first."""
        return await self._send("GET", "/keys")

    async def revoke_key(self, prefix: str) -> None:
        """Revoke a key. Raises `KeyNotFound`."""
        await self._send("POST", "/keys/revoke", {"prefix": prefix})

    async def create_account(self, name: str) -> dict[str, Any]:
        """Create an account; return its record."""
        return await self._send("POST", "/accounts", {"name": name})

    async def list_accounts(self) -> list[dict[str, Any]]:
        """Return all accounts, oldest first. Amounts are in credits."""
        return await self._send("GET", "/accounts")

    async def credit_account(self, account: str, *, usd: str, note: str | None = None) -> dict[str, Any]:
        """Add US dollars, a decimal number, to an account; return its record. account: id or name."""
        return await self._send("POST", "/accounts/credit", {"account": account, "usd": usd, "note": note})

    async def erase_account(self, account: str) -> dict[str, Any]:
        """Remove an account's prompts, images and logs; return the numbers of `Erased`, and `account`.

        account: id or name. Raises `Conflict` while one of its jobs has not ended.
        """
        return await self._send("POST", "/accounts/erase", {"account": account}, ERASURE_TIMEOUT_S)

    async def list_models(self) -> list[dict[str, Any]]:
        """Return the models that the server runs; none without a server."""
        return await self._send("GET", "/models")

    async def create_sign_in_link(self, account: str | None = None) -> str:
        """Return a link that signs a browser in. account: id or name; None: the only one. Raises `AccountNotFound`."""
        created = await self._send("POST", "/sign-in-links", {"account": account})
        return str(created["url"])

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = RESPONSE_TIMEOUT_S
    ) -> Any:
        # Encoded as ASCII by `json.dumps`, because arguments may contain characters that UTF-8 can't encode.
        texts = {name: decoded(value) if isinstance(value, str) else value for name, value in (body or {}).items()}
        content = None if body is None else json.dumps(texts).encode()
        try:
            response = await self._http.request(
                method, path, content=content, headers={"content-type": "application/json"}, timeout=timeout_s
            )
        except httpx2.TransportError as exc:
            raise StoreUnreachable(f"the server did not answer: {type(exc).__name__}") from exc
        if response.is_success:
            return response.json()
        raise error_of(response)


def error_of(response: httpx2.Response) -> Error:
    """Return the error of an unsuccessful response, as an instance of the class with its code."""
    try:
        body = response.json()
        code, message = body["code"], body["message"]
    except (ValueError, KeyError, TypeError):
        return Error(f"the operator's API failed with status {response.status_code}; see the server's log")
    kind = {one.code: one for one in _with_subclasses(Error)}.get(code, Error)
    # The constructors of the classes differ, and the response contains the complete message.
    error = kind.__new__(kind)
    Error.__init__(error, message)
    return error


def _with_subclasses(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


def ask_operator(
    settings: Settings, action: Callable[[OperatorClient], Awaitable[T]], *, may_create: bool = False
) -> T:
    """Run an action with a client of the configured database, which is opened unless a server of its folder runs.

    may_create: whether a missing data folder is created. Raises the errors of the action, `SettingsError` for a missing
    data folder, `StoreError`, or `StoreUnreachable` if a server uses the folder but is unreachable.
    """
    if settings.store.database_url is None and not may_create:
        require_data(settings.store.data_dir)

    async def run() -> T:
        async with connect(settings) as client:
            return await action(client)

    return asyncio.run(run())


def check_database(settings: Settings) -> None:
    """Open and close the configured database. Raises `StoreError` or `SettingsError` if it can't be used."""

    async def run() -> None:
        async with open_operator(settings):
            pass

    asyncio.run(run())


def ask_server(settings: Settings, action: Callable[[OperatorClient], Awaitable[T]]) -> T:
    """Run an action with a client of the server that uses the configured data folder.

    Raises the errors of the action, and `SettingsError` if no server answers.
    """
    folder = settings.store.data_dir
    if folder.is_file():
        raise SettingsError(f"the data folder {folder} can't be used: it is a file, not a folder")
    path = find_socket(folder)
    if not is_listening(path):
        raise SettingsError(
            f"no server answers for the data folder {folder.absolute()}\n"
            "start one with `allaprima serve --open`, or name the folder of a running one with --data-dir"
        )

    async def run() -> T:
        async with _client(httpx2.AsyncHTTPTransport(uds=str(path))) as http:
            return await action(OperatorClient(http))

    return asyncio.run(run())


@asynccontextmanager
async def connect(settings: Settings, timeout_s: float = CONNECT_TIMEOUT_S) -> AsyncIterator[OperatorClient]:
    """Open a client of the configured data folder. Raises `StoreError`, also as `StoreUnreachable`."""
    async with AsyncExitStack() as stack:
        transport = await _open_transport(settings, stack, timeout_s)
        yield OperatorClient(await stack.enter_async_context(_client(transport)))


def _client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=transport, base_url="http://allaprima", timeout=RESPONSE_TIMEOUT_S, trust_env=False
    )


async def _open_transport(settings: Settings, stack: AsyncExitStack, timeout_s: float) -> httpx2.AsyncBaseTransport:
    """Return the transport to the operator's API. stack: closes the data folder if this process opened it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            operator = await stack.enter_async_context(open_operator(settings))
        except StoreLocked as exc:
            path = find_socket(settings.store.data_dir)
            if is_listening(path):
                return httpx2.AsyncHTTPTransport(uds=str(path))
            if time.monotonic() > deadline:
                raise StoreUnreachable(
                    f"{exc.message}, and does not answer at {path}; if its log says that it could not bind a socket, "
                    "stop the server to use this command"
                ) from exc
            # The server may be starting, or the process may be another command that ends soon.
            await asyncio.sleep(POLL_INTERVAL_S)
        else:
            return httpx2.ASGITransport(create_operator_app(operator))
