"""`/v1/webhooks`: the endpoints that receive an account's webhooks, and the signing secret."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from allaprima.api.deps import CallerKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.idempotency import ClaimHeader, claim_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class EndpointResponse(BaseModel):
    """An endpoint that receives webhooks."""

    id: str
    url: str
    created_at: float
    disabled_at: float | None = Field(
        description="Unix seconds when a 410 response or a refused URL disabled the endpoint; null while it is enabled."
    )
    disabled_reason: str | None = Field(description="Why the endpoint is disabled; null while it is enabled.")


class EndpointsResponse(BaseModel):
    """All webhook endpoints of an account, oldest first."""

    object: str
    data: list[EndpointResponse]


class SecretResponse(BaseModel):
    """The secret that signs webhooks."""

    secret: str = Field(description="whsec_ and base64, as in the Standard Webhooks specification.")


@router.get("", responses=problems(401), summary="List webhook endpoints")
async def list_endpoints(key: CallerKey, service: ServiceDep) -> EndpointsResponse:
    """Return the endpoints of the account, one for each `webhook_url` of its requests."""
    found = await service.webhooks.endpoints(key.account_id)
    data = [
        EndpointResponse(
            id=one.id,
            url=one.url,
            created_at=one.created_at,
            disabled_at=one.disabled_at,
            disabled_reason=one.disabled_reason,
        )
        for one in found
    ]
    return EndpointsResponse(object="list", data=data)


@router.get("/secret", responses=problems(401), summary="Show the signing secret")
async def secret(key: CallerKey, service: ServiceDep) -> SecretResponse:
    """Return the account's signing secret. The first request creates it."""
    return SecretResponse(secret=await service.webhooks.secret(key.account_id))


@router.post("/secret/rotate", responses=problems(400, 401, 422), summary="Replace the signing secret")
async def rotate(key: CallerKey, service: ServiceDep, idempotency_key: ClaimHeader = None) -> SecretResponse:
    """Return a new secret. For 24 hours the previous one signs webhooks too, so that receivers can switch."""
    return SecretResponse(
        secret=await service.webhooks.rotate_secret(key.account_id, claim_of(idempotency_key, "secrets", ""))
    )


@router.delete("/{endpoint_id}", responses=problems(401, 404), summary="Delete a webhook endpoint")
async def delete(endpoint_id: str, key: CallerKey, service: ServiceDep) -> Deleted:
    """Delete an endpoint and its pending deliveries. A later request may name a disabled endpoint's URL again."""
    await service.webhooks.delete_endpoint(key.account_id, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook", deleted=True)
