"""`/v1/webhooks`: the endpoints that receive an account's webhooks, and the secret that signs them."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from allaprima.api.deps import CallerKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.idempotency import ClaimHeader, claim_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class EndpointAnswer(BaseModel):
    """An endpoint that receives webhooks."""

    id: str
    url: str
    created_at: float
    disabled_at: float | None = Field(
        description="When the endpoint answered 410, in unix seconds; null while it is enabled."
    )


class EndpointsAnswer(BaseModel):
    """All endpoints, oldest first."""

    object: str
    data: list[EndpointAnswer]


class SecretAnswer(BaseModel):
    """The secret that signs webhooks."""

    secret: str = Field(description="whsec_ and base64, as the Standard Webhooks libraries take it.")


@router.get("", responses=problems(401), summary="List webhook endpoints")
async def list_endpoints(key: CallerKey, service: ServiceDep) -> EndpointsAnswer:
    """Return every URL that a request named as `webhook_url`."""
    found = await service.webhooks.endpoints(key.account_id)
    data = [
        EndpointAnswer(id=one.id, url=one.url, created_at=one.created_at, disabled_at=one.disabled_at) for one in found
    ]
    return EndpointsAnswer(object="list", data=data)


@router.get("/secret", responses=problems(401), summary="Show the signing secret")
async def secret(key: CallerKey, service: ServiceDep) -> SecretAnswer:
    """Return the account's secret, which the first request creates."""
    return SecretAnswer(secret=await service.webhooks.secret(key.account_id))


@router.post("/secret/rotate", responses=problems(400, 401, 422), summary="Replace the signing secret")
async def rotate(key: CallerKey, service: ServiceDep, idempotency_key: ClaimHeader = None) -> SecretAnswer:
    """Return a new secret. The previous one signs too for 24 hours, so that receivers can switch."""
    return SecretAnswer(
        secret=await service.webhooks.rotate_secret(key.account_id, claim_of(idempotency_key, "secrets", ""))
    )


@router.delete("/{endpoint_id}", responses=problems(401, 404), summary="Delete a webhook endpoint")
async def delete(endpoint_id: str, key: CallerKey, service: ServiceDep) -> Deleted:
    """Delete an endpoint and its pending deliveries. A disabled endpoint can be used again after that."""
    await service.webhooks.delete_endpoint(key.account_id, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook", deleted=True)
