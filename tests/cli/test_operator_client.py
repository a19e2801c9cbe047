"""The operator's client: the same results and errors over a server's socket as in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from allaprima.api.operator import create_operator_app
from allaprima.bootstrap.operator import open_operator
from allaprima.cli.operator_client import OperatorClient, connect, error_of
from allaprima.cli.operator_socket import operator_listener
from allaprima.domain.accounts import Account, ApiKey
from allaprima.errors import AccountNotFound, Conflict, Error, InvalidRequest, KeyNotFound, StoreUnreachable
from allaprima.settings import Settings
from allaprima.store.accounts import AccountRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from allaprima.store.postgres import open_postgres
from tests.clock import NOW
from tests.store.backends import query
from tests.store.factories import new_job
from tests.store.postgres_server import server
from tests.store.reaping import WORKER, register

Action = Callable[[OperatorClient], Awaitable[Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store={"data_dir": tmp_path / "data"})


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[None]:
    """Hold the data folder and serve the operator's API on its socket, as `allaprima serve` does."""
    async with open_operator(settings) as operator:
        with operator_listener(settings.store.data_dir) as listener:
            assert listener is not None
            server = uvicorn.Server(uvicorn.Config(create_operator_app(operator), lifespan="off", log_config=None))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
                await serving


@pytest.fixture(params=["in process", "over the socket"])
async def client(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[OperatorClient]:
    if request.param == "in process":
        async with connect(settings) as opened:
            yield opened
    else:
        async with running_server(settings), connect(settings) as opened:
            yield opened


async def test_keys_and_accounts_are_created_listed_and_changed(client: OperatorClient) -> None:
    account = await client.create_account("a/b")
    key = await client.create_key(name="../", account="a/b", is_management=True)
    credited = await client.credit_account(account["id"], usd="2.5", note="March")
    await client.revoke_key(key["prefix"])

    [listed] = await client.list_keys()
    assert (listed["name"], listed["account_id"], listed["is_management"]) == ("../", account["id"], True)
    assert listed["revoked_at"] is not None
    assert credited["balance"] == 5_000_000
    assert await client.list_accounts() == [credited]


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        (lambda client: client.revoke_key("../"), KeyNotFound, "there is no valid key with the prefix ../"),
        (lambda client: client.revoke_key(""), InvalidRequest, "prefix: must not be empty"),
        (lambda client: client.create_account(""), InvalidRequest, "name: must not be empty"),
        (lambda client: client.create_account("\udcff"), InvalidRequest, "name: must be valid Unicode"),
        (
            lambda client: client.create_key(account="../"),
            AccountNotFound,
            "no account has the id or name ../; `allaprima accounts list` shows all ids",
        ),
        (
            lambda client: client.credit_account("a", usd="nan"),
            InvalidRequest,
            "usd: must be a number of US dollars from -1,000,000 to 1,000,000; it is nan",
        ),
    ],
    ids=["revoke ../", "revoke nothing", "create nothing", "create bytes", "account ../", "credit nan"],
)
async def test_api_error_is_raised(client: OperatorClient, action: Action, kind: type[Error], message: str) -> None:
    with pytest.raises(Error) as raised:
        await action(client)

    assert (type(raised.value), raised.value.message) == (kind, message)


def subclasses(kind: type[Error]) -> list[type[Error]]:
    return [kind, *(found for subclass in kind.__subclasses__() for found in subclasses(subclass))]


@pytest.mark.parametrize("kind", subclasses(Error), ids=lambda kind: kind.__name__)
def test_every_class_of_error_is_raised_from_its_code(kind: type[Error]) -> None:
    error = error_of(httpx2.Response(400, json={"code": kind.code, "message": "a [message]"}))

    assert (type(error), error.message, str(error)) == (kind, "a [message]", "a [message]")
    assert (error.problems, error.job_id) == ((), None)


@pytest.mark.parametrize("content", [b"", b"Internal Server Error", b"[]", b"{}", b'{"code": "new", "message": "m"}'])
def test_response_without_known_code_raises_error(content: bytes) -> None:
    assert type(error_of(httpx2.Response(500, content=content))) is Error


async def test_server_without_socket_is_unreachable(settings: Settings) -> None:
    async with open_operator(settings):
        with pytest.raises(StoreUnreachable, match=r"another server uses the data folder .* does not answer"):
            async with connect(settings, timeout_s=0):
                pass


async def test_client_waits_for_command_that_holds_data_folder(settings: Settings) -> None:
    async def create() -> dict[str, Any]:
        async with connect(settings) as client:
            return await client.create_key()

    created = await asyncio.gather(*(create() for _ in range(3)))

    assert len({key["prefix"] for key in created}) == 3


async def test_erasure_on_a_shared_database_leaves_running_jobs_to_their_servers(tmp_path: Path) -> None:
    url, folder = server().create("erased-by-command"), tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    settings = Settings(store={"data_dir": folder, "database_url": url})
    database = await open_postgres(url)
    await register(database)
    account, transitions = Account("account", "acme", NOW), JobTransitions(database)
    owner = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
    await AccountRepository(database).add(account)
    await KeyRepository(database).add(owner, "hash")
    for _ in range(2):
        await transitions.admit(new_job(owner), 10)
    running = (await transitions.lease(WORKER, NOW)).job
    assert running is not None

    async with open_operator(settings) as operator:
        with pytest.raises(Conflict, match="a cancelled job has not ended yet"):
            await operator.erase(account)
        asked = "SELECT state, cancel_asked_at IS NOT NULL FROM jobs ORDER BY state"
        assert await query(database, asked) == [("cancelled", True), ("running", True)]
        assert await transitions.cancel(running, NOW)
        assert (await operator.erase(account)).jobs == 2
    await database.close()
