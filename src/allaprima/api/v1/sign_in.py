"""`/v1/sign-in`: how a browser gets a key without copying one. No key is required."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from allaprima.api.deps import ServiceDep, SettingsDep
from allaprima.api.errors import problems
from allaprima.api.http.body import read_model
from allaprima.api.http.openapi import body_of

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
    """A new key."""

    key: str = Field(description="The key, returned only once.")
    prefix: str = Field(description="Identifies the key: its 8 characters after ap_.")
    name: str | None


class BrowserKeyResponse(BaseModel):
    """A new key."""

    data: BrowserKey


@router.get("/v1/sign-in", response_model=SignInStateResponse, summary="Check whether requests need a key")
async def show(service: ServiceDep) -> dict[str, Any]:
    """Return immediately, without a key."""
    return {"data": {"requires_key": service.local_key is None}}


async def read_body(request: Request, service: ServiceDep, settings: SettingsDep) -> SignInBody:
    """Return the body, counted against the rate limit of the client's address. Raises `InvalidRequest`."""
    service.rates.take(f"sign-in/{request.client.host if request.client else ''}", TOKENS_PER_MINUTE)
    return await read_model(request, settings, SignInBody)


@router.post(
    "/v1/sign-in",
    response_model=BrowserKeyResponse,
    responses=problems(400, 401, 408, 413, 415, 429),
    openapi_extra=body_of(SignInBody, is_required=True),
    summary="Create a key with the token of a sign-in link",
)
async def create(
    body: Annotated[SignInBody, Depends(read_body)], service: ServiceDep, response: Response
) -> dict[str, Any]:
    """Create an ordinary key of the account for which the operator created the token. A token is valid once."""
    response.headers["cache-control"] = "no-store"
    record, key = await service.sign_in.redeem(body.token)
    return {"data": {"key": key, "prefix": record.prefix, "name": record.name}}
