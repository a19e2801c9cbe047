"""Whether the server is up, and whether its models are loaded. No key is needed."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from allaprima.api.deps import ServiceDep

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The state of the server."""

    status: str


@router.get("/health", summary="Check that the server is up")
async def health() -> Health:
    """Answer at once."""
    return Health(status="ok")


@router.get(
    "/ready",
    response_model=Health,
    responses={503: {"model": Health, "description": "The models are still loading; see Retry-After."}},
    summary="Check that the models are loaded",
)
async def ready(service: ServiceDep) -> Response:
    """Answer 200 when every model is loaded, 503 before. Jobs are accepted while models load, and wait."""
    if service.roster.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503, {"retry-after": "2"})
