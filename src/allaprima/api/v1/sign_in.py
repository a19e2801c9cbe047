"""`/v1/sign-in`: how a browser gets a key without copying one. No key is required."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from allaprima.api.deps import ServiceDep, SettingsDep, authenticated
from allaprima.api.errors import problems
from allaprima.api.http.body import read_model
from allaprima.api.http.openapi import body_of
from allaprima.domain.accounts import ApiKey
from allaprima.errors import Unauthorized

router = APIRouter(tags=["keys"])

#: Tokens that a client's address may send per minute.
TOKENS_PER_MINUTE = 30


class SignInBody(BaseModel):
    """A token of a link that `allaprima open` created."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: Annotated[str, Field(strict=True, min_length=1, max_length=200)]


class SignInState(BaseModel):
    """How a client signs in."""

    requires_key: bool = Field(description="Whether requests need a key; false for a server with --no-auth.")


class SignInStateResponse(BaseModel):
    """How a client signs in."""

    data: SignInState


class BrowserKey(BaseModel):
    """The key that the browser signs in with."""

    key: str | None = Field(description="The new key, returned only once; null: the key that the request sent stays.")
    prefix: str = Field(description="Identifies the key: its 8 characters after ap_.")
    name: str | None


class BrowserKeyResponse(BaseModel):
    """The key that the browser signs in with."""

    data: BrowserKey


@router.get("/v1/sign-in", response_model=SignInStateResponse, summary="Check whether requests need a key")
async def show(service: ServiceDep) -> dict[str, Any]:
    """Return immediately, without a key."""
    return {"data": {"requires_key": service.local_key is None}}


async def read_body(request: Request, service: ServiceDep, settings: SettingsDep) -> SignInBody:
    """Return the body, counted against the rate limit of the client's address. Raises `InvalidRequest`."""
    service.rates.take(f"sign-in/{request.client.host if request.client else ''}", TOKENS_PER_MINUTE)
    return await read_model(request, settings, SignInBody)


async def get_held_key(request: Request, service: ServiceDep) -> ApiKey | None:
    """Return the key that the browser has; None if it has none, or one that is no longer valid."""
    try:
        return await authenticated(request, service)
    except Unauthorized:
        return None


@router.post(
    "/v1/sign-in",
    response_model=BrowserKeyResponse,
    responses=problems(400, 401, 408, 413, 415, 429),
    openapi_extra=body_of(SignInBody, is_required=True),
    summary="Create a key with the token of a sign-in link",
)
async def create(
    body: Annotated[SignInBody, Depends(read_body)],
    held: Annotated[ApiKey | None, Depends(get_held_key)],
    service: ServiceDep,
    response: Response,
) -> dict[str, Any]:
    """Create an ordinary key of the account for which the operator created the token. A token is valid once.

    No key is created if the request sends one of the account that generates images.
    """
    response.headers["cache-control"] = "no-store"
    record, key = await service.sign_in.redeem(body.token, held)
    return {"data": {"key": key, "prefix": record.prefix, "name": record.name}}
