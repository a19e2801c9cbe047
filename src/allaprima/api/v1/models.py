"""The models: listed, shown one by one, measured; and whether the server lives and is ready. No key needed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from allaprima.api.deps import ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.query import Parameters, documented
from allaprima.api.v1.keys import iso
from allaprima.api.v1.paths import IMAGES_PATH as PATH
from allaprima.errors import ModelNotFound
from allaprima.service.app import Service
from allaprima.service.models import ServedModel

router = APIRouter()


class Health(BaseModel):
    """Whether the server lives, and whether it paints."""

    status: str


_TYPE = "openai/image-generations"
_TAGS = ("playground:image",)
_MODALITIES = {"input": ["text"], "output": ["image"]}
_CAPABILITIES = ("text_to_image",)
_FILTERS = [
    documented("id", "An id or an alias; several by comma or repetition."),
    documented("type", "Such as openai/image-generations."),
    documented("tags", "Such as playground:image."),
    documented("modalities", "Of input or output, such as text or image."),
    documented("input_modalities", "Such as text."),
    documented("output_modalities", "Such as image."),
    documented("capabilities", "Such as text_to_image."),
]
#: Filter to what of a model it looks at.
_LOOKS: dict[str, Callable[[ServedModel], Sequence[str]]] = {
    "id": lambda model: (model.id, *model.entry.aliases),
    "type": lambda _: (_TYPE,),
    "tags": lambda _: _TAGS,
    "modalities": lambda _: (*_MODALITIES["input"], *_MODALITIES["output"]),
    "input_modalities": lambda _: _MODALITIES["input"],
    "output_modalities": lambda _: _MODALITIES["output"],
    "capabilities": lambda _: _CAPABILITIES,
}
#: Seconds of traffic that the metrics are of, and the percentiles shown.
METRICS_WINDOW_S = 300
PERCENTILES = (50, 75, 90, 99)
MAX_ALIASES = 100


@router.get(
    "/v1/models",
    tags=["models"],
    responses={304: {"description": "The list is as the client has it."}},
    openapi_extra={"parameters": _FILTERS},
    summary="List the models that can be asked for",
)
@router.get("/models", include_in_schema=False)
@router.get("/api/v1/models", include_in_schema=False)
async def list_models(request: Request, service: ServiceDep) -> Response:
    """Return the list in the platform's form, which is a superset of OpenAI's.

    Different filters must all fit; of one filter's values, one. What `include` and `details` ask for is always there.
    """
    wanted = {
        name: {part.strip().lower() for value in request.query_params.getlist(name) for part in value.split(",")}
        for name in _LOOKS
        if name in request.query_params
    }
    found = [
        model
        for model in service.models.served()
        if all(wanted[name] & {value.lower() for value in _LOOKS[name](model)} for name in wanted)
    ]
    content = {"object": "list", "data": [_entry(service, model) for model in found]}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    headers = {"etag": f'W/"{digest}"', "cache-control": "no-cache"}
    asked = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if f'"{digest}"' in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return JSONResponse(content, headers=headers)


@router.get("/model/{name:path}", tags=["models"], responses=problems(404), summary="Show a model")
async def show_model(name: str, service: ServiceDep) -> dict[str, Any]:
    """Return a model by its id or an alias, in any letter case."""
    model = service.models.find(name)
    if model is None:
        raise ModelNotFound
    return {"object": "model", "data": _entry(service, model)}


@router.get(
    "/models/metrics",
    tags=["models"],
    responses=problems(400),
    openapi_extra={"parameters": [documented("aliases", "These alone; may be repeated.", is_repeated=True)]},
    summary="Show how long requests take",
)
async def metrics(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Return percentiles of the requests that succeeded in the last five minutes, by model."""
    parameters = Parameters(request)
    aliases = parameters.many("aliases")
    if len(aliases) > MAX_ALIASES:
        parameters.refuse("aliases", f"must be given at most {MAX_ALIASES} times")
    parameters.finish()
    now = service.clock()
    durations = await service.usage.durations(now - METRICS_WINDOW_S)
    models = [
        {"alias": model, "endpoint": PATH, "metrics": {"duration_ms": _percentiles(seconds)}}
        for model, seconds in sorted(durations.items())
        if not aliases or model in aliases
    ]
    return {"window_seconds": METRICS_WINDOW_S, "generated_at": iso(now), "models": models}


def _percentiles(seconds: list[float]) -> dict[str, int]:
    """Return the nearest-rank percentiles of some sorted seconds in milliseconds."""
    ranks = {share: -(-share * len(seconds) // 100) for share in PERCENTILES}
    return {f"p{share}": round(seconds[rank - 1] * 1000) for share, rank in ranks.items()}


def _entry(service: Service, model: ServedModel) -> dict[str, Any]:
    price = service.prices.of(model.id)
    unit = {"name": "megapixel", "measure": "output", "price": price.megapixel, "per": 1}
    if not price.megapixel_step:
        units = [unit]
    else:
        units = [unit, {"name": "megapixel_step", "measure": "output", "price": price.megapixel_step, "per": 1}]
    return {
        "id": model.id,
        "object": "model",
        "created": model.entry.created,
        "owned_by": model.entry.owned_by,
        "aliases": list(model.entry.aliases),
        "type": _TYPE,
        "info": {
            "name": model.entry.name,
            "developer": model.entry.developer,
            "description": model.entry.description,
            "releasedAt": iso(model.entry.created)[:10] if model.entry.created else "",
            "url": "",
            "docsUrl": "",
            "docsJson": "",
        },
        "tags": list(_TAGS),
        "modalities": _MODALITIES,
        "capabilities": list(_CAPABILITIES),
        "pricing": {"kind": "fixed", "currency": "USD", "units": units},
        "served_by": model.served_by.id,
        "revision": model.served_by.revision,
        "precision": model.served_by.precision,
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
    if service.roster.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503, {"retry-after": "2"})
