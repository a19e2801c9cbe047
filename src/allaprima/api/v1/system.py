"""Health checks: whether the server runs and whether its models are loaded. No key is required."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from allaprima.api.deps import ServiceDep

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The state of the server."""

    status: str


class Readiness(Health):
    """The state of the server and of its storage."""

    warnings: list[str] = Field([], description="Sentences for the operator; missing if there are none.")


@router.get("/health", summary="Check that the server runs")
async def health() -> Health:
    """Return immediately, even while models load."""
    return Health(status="ok")


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "The models are still loading; see Retry-After."}},
    summary="Check that the models are loaded",
)
async def ready(service: ServiceDep) -> Response:
    """Return 200 if every model is loaded, else 503. Jobs that are submitted meanwhile wait in the queue."""
    warning = await service.space.warning()
    more = {"warnings": [warning]} if warning else {}
    if service.roster.is_ready:
        return JSONResponse({"status": "ready"} | more)
    return JSONResponse({"status": "loading"} | more, 503, {"retry-after": "2"})
