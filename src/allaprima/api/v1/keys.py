"""`/v1/keys` and `/v1/key`: the platform's keys, with our key format. All but the last need a management key."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from allaprima.api.deps import ManagementKey, OrdinaryKey, ServiceDep, SettingsDep
from allaprima.api.errors import problems
from allaprima.api.http.body import read_object
from allaprima.api.http.idempotency import ClaimHeader, claim_of
from allaprima.api.http.openapi import body_of
from allaprima.api.v1.key_fields import KeyBody, read_key_body
from allaprima.domain.accounts import ApiKey, KeySpec
from allaprima.domain.billing import to_usd
from allaprima.service.app import Service

router = APIRouter(tags=["keys"])


class LimitAnswer(BaseModel):
    """The most that a key may be charged in a window."""

    retention: str = Field(description="no_reset, day, week or month; windows begin at 00:00 UTC.")
    threshold: float = Field(description="US dollars.")


class KeyObject(BaseModel):
    """A key, without the key."""

    name: str | None
    disabled: bool
    prefix: str = Field(description="The 8 characters after ap_.")
    scopes: list[str] | None = Field(description="null: all.")
    limit: LimitAnswer | None
    created_at: str
    updated_at: str
    monthly_usage: float = Field(description="US dollars charged in this month of UTC.")
    management: bool
    requests_per_minute: int | None = Field(description="null: the server's.")
    safety_threshold: float | None = Field(description="null: the server's.")


class NewKeyObject(KeyObject):
    """A new key."""

    key: str = Field(description="Shown only now.")


class KeyAnswer(BaseModel):
    """One key."""

    data: KeyObject


class NewKeyAnswer(BaseModel):
    """One new key."""

    data: NewKeyObject


class KeysAnswer(BaseModel):
    """All keys of the account, oldest first."""

    data: list[KeyObject]


class DeletedKey(BaseModel):
    """A key that is useless from now on."""

    prefix: str
    deleted: bool


class DeletedKeyAnswer(BaseModel):
    """It is done."""

    data: DeletedKey


_BODY = body_of(KeyBody, is_required=False)
_CHANGE = problems(400, 401, 403, 404, 408, 413, 415)


async def read_changes(request: Request, _key: ManagementKey, settings: SettingsDep) -> dict[str, Any]:
    """Read the body, after the key has been found good; it may be left out."""
    return await read_object(request, settings, is_optional=True)


Changes = Annotated[dict[str, Any], Depends(read_changes)]


@router.post(
    "/v1/keys",
    response_model=NewKeyAnswer,
    responses=problems(400, 401, 403, 404, 408, 413, 415, 422),
    openapi_extra=_BODY,
    summary="Make a key",
)
async def create(
    key: ManagementKey, body: Changes, service: ServiceDep, idempotency_key: ClaimHeader = None
) -> dict[str, Any]:
    """Make an ordinary key of the account; it is shown only in this answer."""
    spec = KeySpec(**read_key_body(body))
    row, made = await service.keys.create(
        spec, key.account_id, claim_of(idempotency_key, "keys", json.dumps(body, sort_keys=True))
    )
    return {"data": (await _show(service, row)) | {"key": made}}


@router.get("/v1/keys", response_model=KeysAnswer, responses=problems(401, 403), summary="List the account's keys")
async def list_keys(key: ManagementKey, service: ServiceDep) -> dict[str, Any]:
    """Return all keys that are not deleted, oldest first."""
    rows = [row for row in await service.keys.all(key.account_id) if row.revoked_at is None]
    spent = await service.usage.spent_this_month(key.account_id, service.clock())
    return {"data": [_key_object(row, spent.get(row.id, 0)) for row in rows]}


@router.get("/v1/key", response_model=KeyAnswer, responses=problems(401, 403), summary="Show the key itself")
async def show_own(key: OrdinaryKey, service: ServiceDep) -> dict[str, Any]:
    """Return the key that asks."""
    return {"data": await _show(service, key)}


@router.patch(
    "/v1/keys/{prefix}", response_model=KeyAnswer, responses=_CHANGE, openapi_extra=_BODY, summary="Change a key"
)
@router.put(
    "/v1/keys/{prefix}", response_model=KeyAnswer, responses=_CHANGE, openapi_extra=_BODY, summary="Change a key"
)
async def change(key: ManagementKey, prefix: str, body: Changes, service: ServiceDep) -> dict[str, Any]:
    """Change the members that are given; null takes a limit, a name or the scopes away."""
    row = await service.keys.change(key.account_id, prefix, **read_key_body(body))
    return {"data": await _show(service, row)}


@router.post(
    "/v1/keys/{prefix}/rotate",
    response_model=NewKeyAnswer,
    responses=problems(400, 401, 403, 404, 422),
    summary="Replace a key",
)
async def rotate(
    key: ManagementKey, prefix: str, service: ServiceDep, idempotency_key: ClaimHeader = None
) -> dict[str, Any]:
    """Let a new key take this one's place, with its limits and its usage; the old one is useless at once."""
    row, made = await service.keys.rotate(key.account_id, prefix, claim_of(idempotency_key, "rotations", prefix))
    return {"data": (await _show(service, row)) | {"key": made}}


@router.delete(
    "/v1/keys/{prefix}",
    response_model=DeletedKeyAnswer,
    responses=problems(401, 403, 404),
    summary="Delete a key",
)
async def delete(key: ManagementKey, prefix: str, service: ServiceDep) -> dict[str, Any]:
    """Make a key useless from the next request on."""
    await service.keys.revoke(prefix, key.account_id)
    return {"data": {"prefix": prefix, "deleted": True}}


async def _show(service: Service, row: ApiKey) -> dict[str, Any]:
    spent = await service.usage.spent_this_month(row.account_id, service.clock())
    return _key_object(row, spent.get(row.id, 0))


def _key_object(row: ApiKey, spent: int) -> dict[str, Any]:
    limit = None
    if row.limit is not None:
        limit = {"retention": row.limit.period.value, "threshold": to_usd(row.limit.credits)}
    return {
        "name": row.name,
        "disabled": row.is_disabled,
        "prefix": row.prefix,
        "scopes": None if row.scopes is None else list(row.scopes),
        "limit": limit,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "monthly_usage": to_usd(spent),
        "management": row.is_management,
        "requests_per_minute": row.requests_per_minute,
        "safety_threshold": row.safety_threshold,
    }


def iso(seconds: float) -> str:
    """Return unix seconds as the platform writes times: ISO 8601 with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
