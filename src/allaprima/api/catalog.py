"""`GET /v1/models`, and whether the server lives and is ready. No key needed."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from allaprima.api.context import ServiceDep
from allaprima.service.models import ServedModel

router = APIRouter()


class Health(BaseModel):
    """Whether the server lives, and whether it paints."""

    status: str


@router.get("/v1/models", tags=["models"], summary="List the models that can be asked for")
@router.get("/models", include_in_schema=False)
async def list_models(service: ServiceDep) -> dict[str, Any]:
    """Return the list in the platform's form, which is a superset of OpenAI's."""
    return {"object": "list", "data": [_entry(model) for model in service.models.served()]}


def _entry(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "aliases": list(model.aliases),
        "type": "openai/image-generations",
        "info": {"name": model.name, "developer": model.owned_by, "description": model.description},
        "modalities": {"input": ["text"], "output": ["image"]},
        "capabilities": ["text_to_image"],
        "pricing": {
            "kind": "fixed",
            "currency": "USD",
            "units": [{"name": "image", "measure": "output", "price": 0, "per": 1}],
        },
        "painted_by": model.painted_by.id,
        "revision": model.painted_by.revision,
        "precision": model.painted_by.precision,
    }


@router.get("/health", tags=["operation"], summary="Say whether the server lives")
async def health() -> Health:
    """Answer at once."""
    return Health(status="ok")


@router.get(
    "/ready",
    tags=["operation"],
    response_model=Health,
    responses={503: {"model": Health, "description": "The models are still loading; see Retry-After."}},
    summary="Say whether the models are loaded",
)
async def ready(service: ServiceDep) -> Response:
    """Answer 200 when every model is loaded, 503 before; jobs are accepted meanwhile and wait."""
    if service.engine.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503, {"retry-after": "2"})
