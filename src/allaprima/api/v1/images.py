"""`POST /v1/images/generations`: a prompt in, the pictures out. A synchronous request is a job and a wait."""

import asyncio
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from allaprima.api.deps import ImageKey, InferenceId, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml import responses, results
from allaprima.api.dialects.aiml.fields import seconds_problem
from allaprima.api.errors import problems, rate_headers
from allaprima.api.http.base_url import base_url
from allaprima.api.http.body import read_object
from allaprima.api.http.idempotency import ClaimHeader, claim
from allaprima.api.http.request_id import set_request_id
from allaprima.api.openapi import body_of
from allaprima.api.v1.jobs import quote
from allaprima.api.v1.submission import (
    BODY,
    Call,
    DeadlineHeader,
    DisconnectHeader,
    on_disconnect,
    read_call,
    start_within,
)
from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import Job
from allaprima.errors import (
    FieldProblem,
    GenerationTimeout,
    IdempotencyInFlight,
    ImageNotFound,
    InvalidRequest,
    JobFinished,
)
from allaprima.service.app import Service

router = APIRouter(tags=["images"])

#: The documented path, and the forms of it that clients in the field use.
PATH = "/v1/images/generations"
OTHER_PATHS = tuple(
    f"{start}/images/generations{end}" for start in ("/v1", "") for end in ("", "/", "/with-url", "/with-url/")
)


@router.post(
    PATH,
    response_model=responses.ImagesAnswer | responses.QuoteAnswer,
    response_model_exclude_unset=True,
    responses=problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=BODY,
    summary="Paint pictures from a prompt",
)
async def create(
    request: Request,
    key: ImageKey,
    call: Annotated[Call, Depends(read_call)],
    service: ServiceDep,
    settings: SettingsDep,
    inference_id: InferenceId,
    idempotency_key: ClaimHeader = None,
    start_deadline: DeadlineHeader = None,
    disconnect: DisconnectHeader = None,
) -> Response:
    """Paint and answer with links to the pictures (or the pictures themselves, where asked)."""
    origin = base_url(request, settings)
    on_leaving = on_disconnect(disconnect)
    terms = call.terms(request, origin)
    if call.body.dry_run:
        return JSONResponse(await quote(service, key, call, terms), headers=call.ignored_header())
    rate = service.rates.take(key.id, key.requests_per_minute)
    headers = {} if rate is None else rate_headers(rate.limit, rate.remaining, rate.reset_s)
    job = await service.jobs.submit(
        key,
        call.request,
        terms,
        inference_id,
        asked=call.body.digest,
        claim=claim(idempotency_key, "images", call.body.digest),
        start_within_s=start_within(start_deadline),
    )
    if job.id != inference_id:
        headers["idempotent-replayed"] = "true"
        set_request_id(request, job.id)
        await _check_answered(service, job)
    elif not job.is_finished:
        job = await _wait(request, service, key, job, settings.wait_s, follows_client=on_leaving == "cancel")
    results.raise_if_unpainted(job)
    pictures = await service.jobs.images_of(job)
    painting = service.jobs.take_unkept(job)
    if not pictures and painting is None:
        raise ImageNotFound("The pictures of this request are no longer here.")
    body = await results.answer(service, job, pictures, origin, painting, prompt=call.request.prompt)
    return JSONResponse(body.model_dump(exclude_unset=True), headers=headers | _headers(body, call, job))


for _path in OTHER_PATHS:
    if _path != PATH:
        router.add_api_route(_path, create, methods=["POST"], include_in_schema=False)


async def _check_answered(service: Service, job: Job) -> None:
    """Raise `IdempotencyInFlight` while the first of some equal requests is not answered."""
    if job.is_finished:
        return
    finish = (await service.jobs.place(job))["predicted_finish"]
    raise IdempotencyInFlight(retry_after_s=max(0.0, (finish or 0.0) - service.clock()))


async def _wait(
    request: Request, service: Service, key: ApiKey, job: Job, wait_s: float, *, follows_client: bool
) -> Job:
    """Return the job when it is finished; follows_client: cancel it when its client goes away.

    What nobody keeps is of no use once nobody waits for it, and is cancelled then too.
    """
    if not follows_client and job.terms.is_kept:
        return await service.jobs.wait(job.id, wait_s)
    waiting = asyncio.ensure_future(service.jobs.wait(job.id, wait_s))
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        is_late = waiting.done() and isinstance(waiting.exception(), GenerationTimeout)
        if waiting.done() and not (is_late and not job.terms.is_kept):
            return waiting.result()
        with suppress(JobFinished):
            await service.jobs.cancel(key.account_id, job.id)
        return await service.jobs.get(key.account_id, job.id)
    finally:
        waiting.cancel()
        leaving.cancel()


async def _until_gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _headers(body: responses.ImagesAnswer, call: Call, job: Job) -> dict[str, str]:
    usage, timings = body.meta.usage, body.timings
    queued_s = (job.started_at or job.created_at) - job.created_at
    phases = {
        "queue": queued_s,
        "text": timings.text,
        "steps": sum(timings.steps),
        "decode": timings.decode,
        "safety": timings.safety,
        "encode": timings.encode,
    }
    return {
        "x-model": body.meta.model,
        "x-aimlapi-credits-used": str(usage.credits_used),
        "x-aimlapi-usd-spent": f"{usage.usd_spent:.9f}",
        "server-timing": ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items()),
    } | call.ignored_header()


# Pictures by id ---------------------------------------------------------------------------------------------------


@router.post(
    "/v1/images/{image_id:uuid}/sign",
    response_model=responses.SignedImage,
    responses=problems(400, 401, 403, 404, 408, 413, 415),
    openapi_extra=body_of(responses.SignBody, is_required=False),
    summary="Make a new link to a picture",
)
async def sign(
    request: Request, image_id: UUID, key: ImageKey, service: ServiceDep, settings: SettingsDep
) -> responses.SignedImage:
    """Return a link that works without a key, until the picture's end or for as long as is asked."""
    values = await read_object(request, settings, is_optional=True)
    problems_found = [FieldProblem(name[:60], "is no member of this body") for name in values if name != "expires_in"]
    wanted_s = values.get("expires_in")
    if wanted_s is not None and (problem := seconds_problem(wanted_s, service.max_image_ttl_s)):
        problems_found.append(FieldProblem("expires_in", problem))
    if problems_found:
        raise InvalidRequest(*problems_found)
    image = await service.jobs.find_image(key.account_id, str(image_id))
    until = image.expires_at
    if wanted_s is not None:
        until = service.clock() + wanted_s
    if until > image.expires_at:
        left = int(image.expires_at - service.clock())
        raise InvalidRequest(FieldProblem("expires_in", f"must be at most {left}: the picture itself ends then"))
    link = f"{base_url(request, settings)}{service.links.path(image, until)}"
    return responses.SignedImage(id=image.id, url=link, expires_at=int(until))


@router.delete(
    "/v1/images/{image_id:uuid}",
    response_model=responses.Deleted,
    responses=problems(401, 403, 404),
    summary="Remove a picture",
)
async def remove(image_id: UUID, key: ImageKey, service: ServiceDep) -> responses.Deleted:
    """Remove a picture for good; its links end at once."""
    await service.jobs.remove_image(key.account_id, str(image_id))
    return responses.Deleted(id=str(image_id), object="image", deleted=True)
