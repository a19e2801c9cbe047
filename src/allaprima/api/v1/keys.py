"""`/v1/keys` and `/v1/key`: API keys in the platform's form. All routes but `GET /v1/key` require a management key."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from allaprima.api.deps import ManagementKey, OrdinaryKey, ServiceDep, SettingsDep
from allaprima.api.errors import problems
from allaprima.api.http.body import read_model
from allaprima.api.http.idempotency import ClaimHeader, claim_of
from allaprima.api.http.openapi import body_of
from allaprima.domain.accounts import ApiKey, KeySpec, LimitPeriod, SpendLimit
from allaprima.domain.billing import to_credits, to_usd
from allaprima.domain.fields import Flag
from allaprima.domain.timestamps import iso
from allaprima.service.app import Service

router = APIRouter(tags=["keys"])

#: The platform's scopes; only `model:image` has an effect on this server.
Scope = Literal[
    "model:chat",
    "model:responses",
    "model:image",
    "model:audio",
    "model:video",
    "model:embeddings",
    "model:speech",
    "model:ocr",
]
#: Numbers must be JSON numbers: neither "5" for 5 nor true for 1.
_STRICT = Field(strict=True, allow_inf_nan=False)


class LimitBody(BaseModel):
    """The largest amount that a key may spend in a period."""

    model_config = ConfigDict(extra="forbid")

    retention: LimitPeriod = Field(description="Periods begin at 00:00 UTC, weeks on Monday, months on the first day.")
    threshold: Annotated[float, _STRICT, Field(ge=0, le=1_000_000_000)] = Field(description="Amount in US dollars.")


class KeyBody(BaseModel):
    """The settings of a key. A change leaves omitted members unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(strict=True, max_length=200)] | None = None
    disabled: Flag = Field(default=False, description="Whether the server refuses the key until it is enabled again.")
    limit: LimitBody | None = Field(None, description="Spend limit; null: none.")
    scopes: list[Scope] | None = Field(None, description="Scopes of the key; null: all.")
    requests_per_minute: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = Field(
        None, description="Rate limit of the key; null: the server's limit."
    )
    safety_threshold: Annotated[float, _STRICT, Field(ge=0, le=1)] | None = Field(
        None, description="Default and highest safety threshold of the key's requests; null: the server's."
    )

    def changes(self) -> dict[str, Any]:
        """Return the given members as fields of a `KeySpec`."""
        limit = self.limit and SpendLimit(self.limit.retention, to_credits(self.limit.threshold))
        values = {
            "name": self.name,
            "is_disabled": self.disabled,
            "limit": limit,
            "scopes": None if self.scopes is None else tuple(dict.fromkeys(self.scopes)),
            "requests_per_minute": self.requests_per_minute,
            "safety_threshold": self.safety_threshold,
        }
        given = {"is_disabled" if name == "disabled" else name for name in self.model_fields_set}
        return {name: value for name, value in values.items() if name in given}


class LimitResponse(BaseModel):
    """The largest amount that a key may spend in a period."""

    retention: str = Field(description="no_reset, day, week or month; periods begin at 00:00 UTC.")
    threshold: float = Field(description="Amount in US dollars.")


class KeyObject(BaseModel):
    """The settings and usage of a key, without the key itself."""

    name: str | None
    disabled: bool
    prefix: str = Field(description="Identifies the key: its 8 characters after ap_.")
    scopes: list[str] | None = Field(description="Scopes of the key; null: all.")
    limit: LimitResponse | None
    created_at: str
    updated_at: str
    monthly_usage: float = Field(description="US dollars spent in the current month (UTC).")
    management: bool
    requests_per_minute: int | None = Field(description="Rate limit of the key; null: the server's limit.")
    safety_threshold: float | None = Field(
        description="Default and highest threshold of the key's requests; null: the server's."
    )


class NewKeyObject(KeyObject):
    """A new key."""

    key: str | None = Field(description="The key, returned only once; null in the response to a replayed request.")


class KeyResponse(BaseModel):
    """One key."""

    data: KeyObject


class NewKeyResponse(BaseModel):
    """One new key."""

    data: NewKeyObject


class KeysResponse(BaseModel):
    """All keys of the account, oldest first."""

    data: list[KeyObject]


class DeletedKey(BaseModel):
    """A deleted key."""

    prefix: str
    deleted: bool


class DeletedKeyResponse(BaseModel):
    """The response to the deletion of a key."""

    data: DeletedKey


_BODY = body_of(KeyBody, is_required=False)
_CHANGE = problems(400, 401, 403, 404, 408, 413, 415)


async def read_key_body(request: Request, _key: ManagementKey, settings: SettingsDep) -> KeyBody:
    """Return the body, which is optional. The management key is checked first. Raises `InvalidRequest`."""
    return await read_model(request, settings, KeyBody)


KeyBodyDep = Annotated[KeyBody, Depends(read_key_body)]


@router.post(
    "/v1/keys",
    response_model=NewKeyResponse,
    responses=problems(400, 401, 403, 404, 408, 413, 415, 422),
    openapi_extra=_BODY,
    summary="Create a key",
)
async def create(
    key: ManagementKey, body: KeyBodyDep, service: ServiceDep, response: Response, idempotency_key: ClaimHeader = None
) -> dict[str, Any]:
    """Create an ordinary key of the account. Only this response contains the key; a replayed request returns null."""
    claim = claim_of(idempotency_key, "keys", body.model_dump(mode="json", exclude_unset=True))
    row, created = await service.keys.create(KeySpec(**body.changes()), key.account_id, claim)
    return {"data": await _show_new(service, row, created, response)}


@router.get("/v1/keys", response_model=KeysResponse, responses=problems(401, 403), summary="List the account's keys")
async def list_keys(key: ManagementKey, service: ServiceDep) -> dict[str, Any]:
    """Return all keys of the account except deleted ones, oldest first."""
    rows = [row for row in await service.keys.all(key.account_id) if row.revoked_at is None]
    spent = await service.usage.spent_this_month(key.account_id, service.clock())
    return {"data": [_key_object(row, spent.get(row.id, 0)) for row in rows]}


@router.get("/v1/key", response_model=KeyResponse, responses=problems(401, 403), summary="Show the caller's key")
async def show_own(key: OrdinaryKey, service: ServiceDep) -> dict[str, Any]:
    """Return the settings and usage of the key that authenticates the request."""
    return {"data": await _show(service, key)}


@router.patch(
    "/v1/keys/{prefix}", response_model=KeyResponse, responses=_CHANGE, openapi_extra=_BODY, summary="Change a key"
)
@router.put(
    "/v1/keys/{prefix}", response_model=KeyResponse, responses=_CHANGE, openapi_extra=_BODY, summary="Change a key"
)
async def change(key: ManagementKey, prefix: str, body: KeyBodyDep, service: ServiceDep) -> dict[str, Any]:
    """Change the given members of a key; null removes a limit or a name."""
    row = await service.keys.change(key.account_id, prefix, **body.changes())
    return {"data": await _show(service, row)}


@router.post(
    "/v1/keys/{prefix}/rotate",
    response_model=NewKeyResponse,
    responses=problems(400, 401, 403, 404, 422),
    summary="Replace a key",
)
async def rotate(
    key: ManagementKey, prefix: str, service: ServiceDep, response: Response, idempotency_key: ClaimHeader = None
) -> dict[str, Any]:
    """Replace a key by a new one with the same settings and usage. The old key becomes invalid immediately.

    Only this response contains the new key; a replayed request returns null.
    """
    row, created = await service.keys.rotate(key.account_id, prefix, claim_of(idempotency_key, "rotations", prefix))
    return {"data": await _show_new(service, row, created, response)}


@router.delete(
    "/v1/keys/{prefix}",
    response_model=DeletedKeyResponse,
    responses=problems(401, 403, 404),
    summary="Delete a key",
)
async def delete(key: ManagementKey, prefix: str, service: ServiceDep) -> dict[str, Any]:
    """Delete a key. Further requests with it are refused."""
    await service.keys.revoke(prefix, key.account_id)
    return {"data": {"prefix": prefix, "deleted": True}}


async def _show(service: Service, row: ApiKey) -> dict[str, Any]:
    spent = await service.usage.spent_this_month(row.account_id, service.clock())
    return _key_object(row, spent.get(row.id, 0))


async def _show_new(service: Service, row: ApiKey, created: str | None, response: Response) -> dict[str, Any]:
    """Return the body of a new key. created: the key; None for a replayed request, which a header then marks."""
    if created is None:
        response.headers["idempotent-replayed"] = "true"
    return (await _show(service, row)) | {"key": created}


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
