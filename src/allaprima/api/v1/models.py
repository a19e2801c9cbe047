"""The models that requests can name, and the duration of their requests. No key is required."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from allaprima.api.deps import ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.conditional import has_current
from allaprima.api.http.query import QueryModel, query_of
from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.domain.fields import refusal
from allaprima.domain.timestamps import iso
from allaprima.errors import ModelNotFound
from allaprima.service.app import Service
from allaprima.service.models import ServedModel

router = APIRouter(tags=["models"])

_TYPE = "openai/image-generations"
_TAGS = ("playground:image",)
_MODALITIES = {"input": ["text"], "output": ["image"]}
_CAPABILITIES = ("text_to_image",)
#: The metrics cover the requests of this many seconds, as these percentiles.
METRICS_WINDOW_S = 300
PERCENTILES = (50, 75, 90, 99)
MAX_ALIASES = 100


class ModelsQuery(BaseModel):
    """Filters of the list of models. A model must match every filter, by any of its values; case is ignored.

    Unknown parameters are ignored too: clients send `include` and `details`, whose data is always in the response.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: list[str] = Field(default=[], description="Ids or aliases, separated by commas or repeated.")
    type: list[str] = Field(default=[], description="Types, such as openai/image-generations.")
    tags: list[str] = Field(default=[], description="Tags, such as playground:image.")
    modalities: list[str] = Field(default=[], description="Input or output modalities, such as text or image.")
    input_modalities: list[str] = Field(default=[], description="Input modalities, such as text.")
    output_modalities: list[str] = Field(default=[], description="Output modalities, such as image.")
    capabilities: list[str] = Field(default=[], description="Capabilities, such as text_to_image.")

    def matches(self, model: ServedModel) -> bool:
        """Return whether a model matches all filters."""
        values: dict[str, Sequence[str]] = {
            "id": (model.id, *model.entry.aliases),
            "type": (_TYPE,),
            "tags": _TAGS,
            "modalities": (*_MODALITIES["input"], *_MODALITIES["output"]),
            "input_modalities": _MODALITIES["input"],
            "output_modalities": _MODALITIES["output"],
            "capabilities": _CAPABILITIES,
        }
        return all(
            {part.strip().lower() for value in getattr(self, name) for part in value.split(",")}
            & {value.lower() for value in values[name]}
            for name in self.model_fields_set
        )


def _aliases(values: list[str]) -> list[str]:
    if len(values) > MAX_ALIASES:
        raise refusal(f"must be given at most {MAX_ALIASES} times")
    return values


class MetricsQuery(QueryModel):
    """The parameters of `/models/metrics`."""

    aliases: Annotated[
        list[str],
        AfterValidator(_aliases),
        WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_ALIASES}),
    ] = Field(default=[], description="Only these models; may be repeated.")


@router.get(
    "/v1/models",
    responses={304: {"description": "The client already has the current list."}},
    summary="List the models that requests can name",
)
@router.get("/v1/models/", include_in_schema=False)
@router.get("/models", include_in_schema=False)
@router.get("/api/v1/models", include_in_schema=False)
async def list_models(request: Request, query: Annotated[ModelsQuery, Query()], service: ServiceDep) -> Response:
    """Return the models in the platform's form, which is a superset of OpenAI's."""
    found = [model for model in service.models.served() if query.matches(model)]
    content = {"object": "list", "data": [_entry(service, model) for model in found]}
    etag = f'W/"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if has_current(request, etag):
        return Response(status_code=304, headers=headers)
    return JSONResponse(content, headers=headers)


@router.get("/v1/models/{name:path}", responses=problems(404), summary="Show a model in OpenAI's form")
@router.get("/api/v1/models/{name:path}", include_in_schema=False)
async def retrieve_model(name: str, service: ServiceDep) -> dict[str, Any]:
    """Return the entry of a model in the list of models, by its id or an alias; case is ignored."""
    return _entry(service, _find(service, name))


@router.get("/model/{name:path}", responses=problems(404), summary="Show a model")
async def show_model(name: str, service: ServiceDep) -> dict[str, Any]:
    """Return a model by its id or an alias; case is ignored."""
    return {"object": "model", "data": _entry(service, _find(service, name))}


def _find(service: Service, name: str) -> ServedModel:
    model = service.models.find(name)
    if model is None:
        raise ModelNotFound
    return model


@router.get("/models/metrics", responses=problems(400), summary="Show the duration of requests")
async def metrics(service: ServiceDep, query: Annotated[MetricsQuery, query_of(MetricsQuery)]) -> dict[str, Any]:
    """Return percentiles of the duration of successful requests in the last five minutes, by model."""
    now = service.clock()
    durations = await service.usage.durations(now - METRICS_WINDOW_S)
    models = [
        {"alias": model, "endpoint": IMAGES_PATH, "metrics": {"duration_ms": _percentiles(seconds)}}
        for model, seconds in sorted(durations.items())
        if not query.aliases or model in query.aliases
    ]
    return {"window_seconds": METRICS_WINDOW_S, "generated_at": iso(now), "models": models}


def _percentiles(seconds: list[float]) -> dict[str, int]:
    """Return nearest-rank percentiles in milliseconds. seconds: sorted durations."""
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
