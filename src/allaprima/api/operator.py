"""The operator's API: manages the accounts and keys of one data folder. Only the command line uses it.

Only one process may write to the database, so a running server offers this API on a Unix socket. File permissions are
its only authentication: only the owner of the socket can connect. Without a server, the command line runs the API in
its own process. Names are sent in bodies instead of paths, so that every name works. The application uses Starlette
alone, because importing FastAPI takes longer than running a command.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from allaprima.domain.accounts import Account, ApiKey, KeySpec
from allaprima.domain.billing import to_credits
from allaprima.domain.fields import problems_in, refusal, text
from allaprima.domain.models import ModelInfo
from allaprima.domain.ports import Roster
from allaprima.errors import Error, FieldProblem, InvalidRequest
from allaprima.service.operator import OperatorService

#: Longest name of an account or a key, in characters.
MAX_NAME = 200
#: Largest amount of one payment or withdrawal, in US dollars.
MAX_PAYMENT_USD = 1_000_000


def _reference(value: Any) -> str:
    """Return any text that the database can store, so that an unknown name is an error of the type `NotFound`."""
    name = text(value)
    if not name:
        raise refusal("must not be empty")
    if "\0" in name:
        raise refusal("must not contain the NUL character")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise refusal("must be valid Unicode")
    return name


def _name(value: Any) -> str:
    name = _reference(value)
    if len(name) > MAX_NAME:
        raise refusal(f"must have at most {MAX_NAME} characters; it has {len(name)}")
    if not name.isprintable() or not name.strip():
        raise refusal("must contain a visible character and no control characters")
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


Reference = Annotated[str, BeforeValidator(_reference)]
Name = Annotated[str, BeforeValidator(_name)]
B = TypeVar("B", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewKey(_Body):
    """Settings of a new key."""

    name: Name | None = None
    #: Id or name of the account; None: the first account.
    account: Reference | None = None
    is_management: bool = False


class Revocation(_Body):
    """The key to revoke."""

    #: The 8 characters after `ap_`.
    prefix: Reference


class NewAccount(_Body):
    """Settings of a new account."""

    name: Name


class AccountErasure(_Body):
    """The account to erase."""

    #: Id or name of the account.
    account: Reference


class Payment(_Body):
    """A payment into an account, or a withdrawal."""

    #: Id or name of the account.
    account: Reference
    #: US dollars as a decimal number in a string, so that no digit is lost; negative for a withdrawal.
    usd: Annotated[Decimal, BeforeValidator(_usd)]
    note: Name | None = None


class SignInLink(_Body):
    """The account that a link signs in to."""

    #: Id or name of the account; None: the only account.
    account: Reference | None = None


#: Returns a link that signs a browser in to an account; None: the only account. Raises `AccountNotFound`.
LinkTo = Callable[[str | None], Awaitable[str]]


def create_operator_app(
    operator: OperatorService, roster: Roster | None = None, link_to: LinkTo | None = None
) -> Starlette:
    """Return the application that serves an open data folder.

    roster: the models that this process runs. link_to: creates links to its pages; None: it serves none. The
    body of an error is `{"code", "message"}`; an invalid request body is an `InvalidRequest`.
    """
    routes = [*_key_routes(operator), *_account_routes(operator), *_model_routes(roster), *_link_routes(link_to)]
    return Starlette(routes=routes, exception_handlers={Error: _answer_error})


def _key_routes(operator: OperatorService) -> list[Route]:
    async def create_key(body: NewKey) -> dict[str, Any]:
        account_id = None if body.account is None else (await operator.accounts.find(body.account)).id
        spec = KeySpec(name=body.name, is_management=body.is_management)
        record, key = await operator.keys.create(spec, account_id)
        return _shown_key(record) | {"key": key}

    async def list_keys(_request: Request) -> JSONResponse:
        return JSONResponse([_shown_key(record) for record in await operator.keys.all()])

    async def revoke_key(body: Revocation) -> dict[str, Any]:
        await operator.keys.revoke(body.prefix)
        return {"prefix": body.prefix, "revoked": True}

    return [
        Route("/keys", list_keys, methods=["GET"]),
        _post("/keys", NewKey, create_key),
        _post("/keys/revoke", Revocation, revoke_key),
    ]


def _account_routes(operator: OperatorService) -> list[Route]:
    async def create_account(body: NewAccount) -> dict[str, Any]:
        return _shown_account(await operator.accounts.create(body.name))

    async def list_accounts(_request: Request) -> JSONResponse:
        return JSONResponse([_shown_account(account) for account in await operator.account_records.all()])

    async def credit_account(body: Payment) -> dict[str, Any]:
        account = await operator.accounts.find(body.account)
        return _shown_account(await operator.accounts.credit(account.id, to_credits(body.usd), body.note))

    async def erase_account(body: AccountErasure) -> dict[str, Any]:
        account = await operator.accounts.find(body.account)
        return {"account": _shown_account(account)} | asdict(await operator.erase(account))

    return [
        Route("/accounts", list_accounts, methods=["GET"]),
        _post("/accounts", NewAccount, create_account),
        _post("/accounts/credit", Payment, credit_account),
        _post("/accounts/erase", AccountErasure, erase_account),
    ]


def _model_routes(roster: Roster | None) -> list[Route]:
    async def list_models(_request: Request) -> JSONResponse:
        return JSONResponse([_shown_model(model) for model in (roster.models if roster else ())])

    return [Route("/models", list_models, methods=["GET"])]


def _link_routes(link_to: LinkTo | None) -> list[Route]:
    if link_to is None:
        return []

    async def create_link(body: SignInLink) -> dict[str, Any]:
        return {"url": await link_to(body.account)}

    return [_post("/sign-in-links", SignInLink, create_link)]


def _shown_model(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.id,
        "state": "loaded" if model.revision else "loading",
        "revision": model.revision or None,
        "precision": model.precision.value if model.precision else None,
    }


def _post(path: str, model: type[B], operation: Callable[[B], Awaitable[dict[str, Any]]]) -> Route:
    async def endpoint(request: Request) -> JSONResponse:
        try:
            body = model.model_validate(json.loads(await request.body()))
        except ValidationError as exc:
            raise InvalidRequest(*problems_in(exc)) from exc
        except ValueError as exc:
            raise InvalidRequest(FieldProblem("body", "must be JSON")) from exc
        return JSONResponse(await operation(body))

    return Route(path, endpoint, methods=["POST"])


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
    """Return an account as JSON values; amounts are in credits."""
    return {
        "id": account.id,
        "name": account.name,
        "created_at": account.created_at,
        "balance": account.balance,
        "held": account.held,
    }


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    # Imported here because this module imports FastAPI.
    from allaprima.api.errors import status_of

    assert isinstance(error, Error)  # the handler is registered for this class
    return JSONResponse({"code": error.code, "message": error.message}, status_of(error))
