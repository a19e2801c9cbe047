"""Health checks: whether the server runs and whether its models are loaded. No key is required."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from allaprima.api.deps import ServiceDep

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The state of the server."""

    status: str


@router.get("/health", summary="Check that the server runs")
async def health() -> Health:
    """Return immediately, even while models load."""
    return Health(status="ok")


@router.get(
    "/ready",
    response_model=Health,
    responses={503: {"model": Health, "description": "The models are still loading; see Retry-After."}},
    summary="Check that the models are loaded",
)
async def ready(service: ServiceDep) -> Response:
    """Return 200 if every model is loaded, else 503. Jobs that are submitted meanwhile wait in the queue."""
    if service.roster.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503, {"retry-after": "2"})
