"""The operator's API: accounts and keys of one data folder, for the command line alone.

A running server offers it on a Unix socket that its owner alone can connect to, which is the whole authentication; only
one process may write to the database. Without a server the command line serves it to itself. Names travel in bodies,
never in paths, so that every name works.
"""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict

from allaprima.api.errors import add_error_handlers, status_of
from allaprima.api.http.request_id import RequestIdMiddleware
from allaprima.domain.accounts import Account, ApiKey, KeySpec
from allaprima.domain.billing import to_credits
from allaprima.domain.fields import Text, refusal, text
from allaprima.errors import Error, FieldProblem, InvalidRequest
from allaprima.service.app import OperatorService

#: Longest name of an account or a key, in characters.
MAX_NAME = 200
#: Most US dollars that one payment adds or takes.
MAX_PAYMENT_USD = 1_000_000


def _name(value: Any) -> str:
    name = text(value)
    if not name.strip():
        raise refusal("must not be empty")
    if len(name) > MAX_NAME:
        raise refusal(f"must have at most {MAX_NAME} characters; it has {len(name)}")
    if any(ord(character) < 32 or "\ud800" <= character <= "\udfff" for character in name):
        raise refusal("must be valid Unicode without control characters")
    return name


def _usd(value: Any) -> Decimal:
    allowed = f"must be a number of US dollars from -{MAX_PAYMENT_USD:,} to {MAX_PAYMENT_USD:,}"
    try:
        usd = Decimal(text(value))
    except InvalidOperation as exc:
        raise refusal(f"{allowed}; it is {value[:40]!r}") from exc
    if not (usd.is_finite() and -MAX_PAYMENT_USD <= usd <= MAX_PAYMENT_USD):
        raise refusal(f"{allowed}; it is {value[:40]}")
    return usd


Name = Annotated[str, BeforeValidator(_name)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewKey(_Body):
    """Settings of a new key."""

    name: Name | None = None
    #: Id or name; None: the first account.
    account: Text | None = None
    is_management: bool = False


class Revocation(_Body):
    """The key to revoke."""

    #: The 8 characters after `ap_`.
    prefix: Text


class NewAccount(_Body):
    """Settings of a new account."""

    name: Name


class Payment(_Body):
    """An amount to pay into an account."""

    #: Id or name.
    account: Text
    #: A decimal number in a string, so that no digit is lost. Below zero: to take out.
    usd: Annotated[Decimal, BeforeValidator(_usd)]
    note: Name | None = None


def create_operator_app(operator: OperatorService) -> FastAPI:
    """Return the application of an open data folder.

    Every `Error` is answered as `{"code", "message"}` of its class; a body that is not valid as `InvalidRequest`.
    """
    app = FastAPI(title="allaprima operator", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_routes(operator))
    add_error_handlers(app)
    app.add_exception_handler(Error, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_middleware(RequestIdMiddleware)
    return app


def _routes(operator: OperatorService) -> APIRouter:
    router = APIRouter()

    @router.post("/keys")
    async def create_key(body: NewKey) -> dict[str, Any]:
        account_id = None if body.account is None else (await operator.accounts.find(body.account)).id
        spec = KeySpec(name=body.name, is_management=body.is_management)
        record, key = await operator.keys.create(spec, account_id)
        return _shown_key(record) | {"key": key}

    @router.get("/keys")
    async def list_keys() -> list[dict[str, Any]]:
        return [_shown_key(record) for record in await operator.keys.all()]

    @router.post("/keys/revoke")
    async def revoke_key(body: Revocation) -> dict[str, Any]:
        await operator.keys.revoke(body.prefix)
        return {"prefix": body.prefix, "revoked": True}

    @router.post("/accounts")
    async def create_account(body: NewAccount) -> dict[str, Any]:
        return _shown_account(await operator.accounts.create(body.name))

    @router.get("/accounts")
    async def list_accounts() -> list[dict[str, Any]]:
        return [_shown_account(account) for account in await operator.account_records.all()]

    @router.post("/accounts/credit")
    async def credit_account(body: Payment) -> dict[str, Any]:
        account = await operator.accounts.find(body.account)
        return _shown_account(await operator.accounts.credit(account.id, to_credits(body.usd), body.note))

    return router


def _shown_key(record: ApiKey) -> dict[str, Any]:
    return {
        "prefix": record.prefix,
        "name": record.name,
        "account_id": record.account_id,
        "created_at": record.created_at,
        "revoked_at": record.revoked_at,
        "is_management": record.is_management,
        "is_disabled": record.is_disabled,
    }


def _shown_account(account: Account) -> dict[str, Any]:
    """Return an account as plain values; money in credits."""
    return {
        "id": account.id,
        "name": account.name,
        "created_at": account.created_at,
        "balance": account.balance,
        "held": account.held,
    }


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Error)  # it is registered for these
    # The message may repeat a name with a lone surrogate, which UTF-8 can't hold.
    message = error.message.encode(errors="replace").decode()
    return JSONResponse({"code": error.code, "message": message}, status_of(error))


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # it is registered for these
    # Each location starts with "body".
    problems = [FieldProblem(".".join(map(str, one["loc"][1:])) or "body", one["msg"]) for one in error.errors()]
    return await _answer_error(request, InvalidRequest(*problems))
