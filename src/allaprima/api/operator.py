"""The operator's door: accounts and keys beside a running server, over a socket in the data folder.

The socket is readable by its owner alone, which is the whole authentication. Only one process may write to the
database, so the command line asks here whenever a server holds the data folder.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from allaprima.api.errors import add_error_handlers
from allaprima.api.http.request_id import RequestIdMiddleware
from allaprima.domain.accounts import Account, ApiKey, KeySpec
from allaprima.metrics import Metrics
from allaprima.service.app import OperatorService

SOCKET_FILE = "admin.sock"


class NewKey(BaseModel):
    """What a key is to be."""

    name: str | None = None
    account: str | None = None
    is_management: bool = False


class NewAccount(BaseModel):
    """What to call an account."""

    name: str


class Credit(BaseModel):
    """What to pay into an account."""

    #: Below zero: to be taken out.
    credits: int
    note: str | None = None


def show_key(row: ApiKey) -> dict[str, Any]:
    """Return a key's row as plain values."""
    return {
        "prefix": row.prefix,
        "name": row.name,
        "account_id": row.account_id,
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
        "is_management": row.is_management,
        "is_disabled": row.is_disabled,
    }


def show_account(account: Account) -> dict[str, Any]:
    """Return an account as plain values; money in credits."""
    return {
        "id": account.id,
        "name": account.name,
        "created_at": account.created_at,
        "balance": account.balance,
        "held": account.held,
    }


async def create_key(operator: OperatorService, wanted: NewKey) -> dict[str, Any]:
    """Make a key, and show it."""
    account_id = (await operator.accounts.find(wanted.account)).id if wanted.account else None
    row, key = await operator.keys.create(KeySpec(name=wanted.name, is_management=wanted.is_management), account_id)
    return show_key(row) | {"key": key}


def create_admin_app(operator: OperatorService) -> FastAPI:
    """Return the application behind the socket."""
    router = APIRouter()

    @router.post("/keys")
    async def make_key(body: NewKey) -> dict[str, Any]:
        return await create_key(operator, body)

    @router.get("/keys")
    async def list_keys() -> list[dict[str, Any]]:
        return [show_key(row) for row in await operator.keys.all()]

    @router.delete("/keys/{prefix}")
    async def revoke(prefix: str) -> dict[str, Any]:
        await operator.keys.revoke(prefix)
        return {"prefix": prefix, "revoked": True}

    @router.post("/accounts")
    async def make_account(body: NewAccount) -> dict[str, Any]:
        return show_account(await operator.accounts.create(body.name))

    @router.get("/accounts")
    async def list_accounts() -> list[dict[str, Any]]:
        return [show_account(account) for account in await operator.account_records.all()]

    @router.post("/accounts/{name}/credits")
    async def credit(name: str, body: Credit) -> dict[str, Any]:
        account = await operator.accounts.find(name)
        return show_account(await operator.accounts.credit(account.id, body.credits, body.note))

    app = FastAPI(title="allaprima operator", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.metrics = Metrics()
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(RequestIdMiddleware)
    return app
