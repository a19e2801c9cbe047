"""`POST /v1/images/generations`: a prompt in, the pictures out. A synchronous request is a job and a wait."""

import base64
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from allaprima.api import answers
from allaprima.api.body import read_object
from allaprima.api.context import CallerKey, InferenceId, ServiceDep, SettingsDep
from allaprima.api.errors import ErrorBody, rate_headers
from allaprima.api.origin import base_url
from allaprima.api.schemas import ImagesBody, ImagesCall, read_images_body
from allaprima.errors import Cancelled, GenerationFailed
from allaprima.request import RANDOM_SEED_BOUND, ImageRequest
from allaprima.service.models import ServedModel
from allaprima.service.rates import Rate
from allaprima.service.service import Service
from allaprima.store.jobs import ImageRow, Job
from allaprima.store.schema import JobState

router = APIRouter(tags=["images"])

#: The documented path, and the forms of it that clients in the field use.
PATH = "/v1/images/generations"
OTHER_PATHS = tuple(
    f"{start}/images/generations{end}" for start in ("/v1", "") for end in ("", "/", "/with-url", "/with-url/")
)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Fields that can't be done as asked, all of them."},
    401: {"model": ErrorBody, "description": "No good key."},
    413: {"model": ErrorBody, "description": "The body is too large."},
    415: {"model": ErrorBody, "description": "The body is not application/json."},
    429: {"model": ErrorBody, "description": "The queue is full, or the key's limit is reached; see Retry-After."},
    500: {"model": ErrorBody, "description": "The job failed."},
    503: {"model": ErrorBody, "description": "The server is stopping; see Retry-After."},
    504: {"model": ErrorBody, "description": "The wait is over; the job goes on."},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": ImagesBody.model_json_schema(ref_template="#/components/schemas/{model}")}
        },
    }
}


async def read_call(request: Request, _key: CallerKey, service: ServiceDep, settings: SettingsDep) -> ImagesCall:
    """Parse the body, after the key has been found good."""
    values = await read_object(request, settings.max_body_bytes)
    return read_images_body(values, lambda name: _model_problem(service, name))


@router.post(
    PATH,
    response_model=answers.ImagesAnswer,
    response_model_exclude_unset=True,
    responses=_PROBLEMS,
    openapi_extra=_BODY,
    summary="Paint pictures from a prompt",
)
async def create(
    request: Request,
    key: CallerKey,
    call: Annotated[ImagesCall, Depends(read_call)],
    service: ServiceDep,
    settings: SettingsDep,
    inference_id: InferenceId,
) -> Response:
    """Paint and answer with links to the pictures (or the pictures themselves, where asked)."""
    served = service.models.find(call.model)
    assert served is not None  # `read_call` refuses unknown models
    origin = base_url(request, settings)
    rate = service.rates.take(key.id)
    job = await service.jobs.submit(key, _image_request(call, served), inference_id)
    job = await service.jobs.wait(job.id, settings.wait_s)
    _raise_if_unpainted(job)
    images = await service.jobs.images_of(job)
    body = await _answer(service, call, served, job, images, origin)
    return JSONResponse(body.model_dump(exclude_unset=True), headers=_headers(body, call, rate))


for _path in OTHER_PATHS:
    if _path != PATH:
        router.add_api_route(_path, create, methods=["POST"], include_in_schema=False)


def _model_problem(service: Service, name: str) -> str | None:
    if service.models.find(name):
        return None
    loaded = ", ".join(f"'{model.id}'" for model in service.models.served())
    return f"there is no model {name[:80]!a} here; loaded are {loaded}"


def _image_request(call: ImagesCall, served: ServedModel) -> ImageRequest:
    return ImageRequest(
        prompt=call.prompt,
        seed=secrets.randbelow(RANDOM_SEED_BOUND) if call.seed is None else call.seed,
        model=served.painted_by.id,
        width=call.width,
        height=call.height,
        steps=call.steps,
        count=call.count,
        check_safety=call.check_safety,
        image_format=call.image_format,
        on_long_prompt=call.on_long_prompt,
    )


def _raise_if_unpainted(job: Job) -> None:
    if job.state == JobState.CANCELLED:
        raise Cancelled
    if job.state != JobState.SUCCEEDED:
        raise GenerationFailed(job.error_message)


async def _answer(
    service: Service, call: ImagesCall, served: ServedModel, job: Job, images: list[ImageRow], origin: str
) -> answers.ImagesAnswer:
    result = job.result or {}
    warnings = [*_call_warnings(call, served), *result["warnings"]]
    is_inline = call.in_base64 or call.as_data_uri
    files = [await service.jobs.read_object(image) if is_inline else b"" for image in images]
    encoded = [base64.b64encode(data).decode() for data in files]
    links = [f"{origin}{service.links.path(image)}" for image in images]
    if call.as_data_uri:
        links = [f"data:{image.content_type};base64,{text}" for image, text in zip(images, encoded, strict=True)]
    return answers.ImagesAnswer(
        created=int(job.created_at),
        images=[
            answers.AnswerImage(
                url=link,
                width=job.request.width,
                height=job.request.height,
                content_type=image.content_type,
                seed=image.seed,
                sha256=image.sha256,
                nsfw_score=image.nsfw_score,
                expires_at=int(image.expires_at),
            )
            for image, link in zip(images, links, strict=True)
        ],
        data=[
            answers.AnswerData(b64_json=text) if call.in_base64 else answers.AnswerData(url=link)
            for text, link in zip(encoded, links, strict=True)
        ],
        timings=answers.AnswerTimings(**result["timings"]),
        seed=job.request.seed,
        has_nsfw_concepts=[image.is_flagged for image in images],
        prompt=job.request.prompt,
        meta=answers.AnswerMeta(
            model=result["model"],
            revision=result["revision"],
            precision=result.get("precision"),
            usage=answers.AnswerUsage(credits_used=0, usd_spent=0.0),
            warnings=warnings,
        ),
    )


def _call_warnings(call: ImagesCall, served: ServedModel) -> list[str]:
    warnings = []
    if served.is_stand_in:
        warnings.append(f"{served.id} has no weights here; {served.painted_by.id} painted in its stead")
    if call.ignored:
        warnings.append(f"fields without effect: {', '.join(map(_shown, call.ignored))}")
    return warnings


def _shown(name: str) -> str:
    """A client's field name as text that a header can carry."""
    text = name[:60].encode("ascii", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")
    return text[:60].strip()


def _headers(body: answers.ImagesAnswer, call: ImagesCall, rate: Rate | None) -> dict[str, str]:
    usage = body.meta.usage
    headers = {
        "x-model": body.meta.model,
        "x-aimlapi-credits-used": str(usage.credits_used),
        "x-aimlapi-usd-spent": f"{usage.usd_spent:.9f}",
    }
    if rate is not None:
        headers |= rate_headers(rate.limit, rate.remaining, rate.reset_s)
    if call.ignored:
        names = [name for name in map(_shown, call.ignored[:32]) if name and name.isprintable()]
        headers["x-ignored-fields"] = ", ".join(names)
    return headers
