"""`/v1/jobs`: the asynchronous form of the images endpoint. Submit, look, list, cancel, remove, watch."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from allaprima.api.deps import ImageKey, InferenceId, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml import responses, results
from allaprima.api.errors import problems, rate_headers
from allaprima.api.http.base_url import base_url
from allaprima.api.http.idempotency import ClaimHeader, claim
from allaprima.api.http.pagination import read_cursor, write_cursor
from allaprima.api.http.query import Parameters, documented, find_key
from allaprima.api.http.request_id import set_request_id
from allaprima.api.v1.submission import BODY, QUOTES_PER_MINUTE, Call, DeadlineHeader, read_call, start_within
from allaprima.domain.billing import to_usd
from allaprima.domain.jobs import Job, JobState, StoredImage
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.service.app import Service

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_PAGE = 20


@router.post(
    "",
    status_code=202,
    response_model=responses.JobAnswer,
    responses={
        200: {"model": responses.QuoteAnswer, "description": "With dry_run: what it would come to."},
        **problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=BODY,
    summary="Submit a job",
)
async def submit(
    request: Request,
    key: ImageKey,
    call: Annotated[Call, Depends(read_call)],
    service: ServiceDep,
    settings: SettingsDep,
    inference_id: InferenceId,
    idempotency_key: ClaimHeader = None,
    start_deadline: DeadlineHeader = None,
) -> Response:
    """Accept a request for pictures and answer at once; the job is then in the queue, whatever happens."""
    origin = base_url(request, settings)
    terms = call.terms(request, origin)
    if call.body.dry_run:
        return JSONResponse(await quote(service, key, call, terms), headers=call.ignored_header())
    rate = service.rates.take(key.id, key.requests_per_minute)
    headers = {} if rate is None else rate_headers(rate.limit, rate.remaining, rate.reset_s)
    if not call.body.is_kept:
        raise InvalidRequest(FieldProblem("store", "must be true for a job: its pictures are fetched later"))
    job = await service.jobs.submit(
        key,
        call.request,
        terms,
        inference_id,
        asked=call.body.digest,
        claim=claim(idempotency_key, "jobs", call.body.digest),
        start_within_s=start_within(start_deadline),
    )
    headers |= {"location": f"/v1/jobs/{job.id}", "x-model": job.request.model} | call.ignored_header()
    if job.id != inference_id:
        headers["idempotent-replayed"] = "true"
        set_request_id(request, job.id)
    return JSONResponse(await show(service, job, origin), 202, headers)


async def quote(service: Service, key: Any, call: Call, terms: Any) -> dict[str, Any]:
    """Return what a call would come to."""
    service.rates.take(f"quotes/{key.id}", QUOTES_PER_MINUTE)
    found = await service.jobs.quote(key, call.request, terms)
    return responses.QuoteAnswer(
        object="quote",
        model=terms.model,
        painted_by=call.request.model,
        tokens=found.tokens,
        max_tokens=found.room,
        image_size=responses.Size(width=call.request.width, height=call.request.height),
        num_images=call.request.count,
        num_inference_steps=call.request.steps,
        usage=responses.AnswerUsage(credits_used=found.credits, usd_spent=to_usd(found.credits)),
        seconds=round(found.seconds, 3),
        predicted_start=round(found.predicted_start, 3),
        predicted_finish=round(found.predicted_start + found.seconds, 3),
        warnings=list(terms.warnings),
    ).model_dump()


_LIST = [
    documented("status", "One state's alone: queued, running, succeeded, failed or cancelled."),
    documented("group_id", "One group's alone."),
    documented("key_prefix", "Those that one key of the account submitted alone."),
    documented("limit", "1 to 100; 20 where it is left out."),
    documented("cursor", "next_cursor of the page before."),
]


@router.get(
    "",
    response_model=responses.JobsAnswer,
    responses=problems(400, 401, 403, 404),
    openapi_extra={"parameters": _LIST},
    summary="List jobs, newest first",
)
async def list_jobs(request: Request, key: ImageKey, service: ServiceDep, settings: SettingsDep) -> Response:
    """Return a page of the account's jobs."""
    parameters = Parameters(request)
    status = parameters.choice("status", [state.value for state in JobState])
    group_id, prefix = parameters.one("group_id"), parameters.one("key_prefix")
    limit = parameters.integer("limit", _PAGE, 1, 100)
    cursor = parameters.one("cursor")
    before = None if cursor is None else read_cursor(cursor)
    if cursor is not None and before is None:
        parameters.refuse("cursor", "is none of ours; leave it out for the first page")
    parameters.finish()
    state = JobState(status) if status else None
    key_id = None if prefix is None else await find_key(service, key.account_id, prefix)
    found = await service.jobs.page(
        key.account_id, state=state, group_id=group_id, key_id=key_id, before=before, limit=limit + 1
    )
    page, has_more = found[:limit], len(found) > limit
    pictures = await service.jobs.images_of_all(page)
    origin = base_url(request, settings)
    shown = [await show(service, job, origin, pictures[job.id], is_listed=True) for job in page]
    next_cursor = write_cursor(page[-1].id) if has_more else None
    return JSONResponse({"object": "list", "data": shown, "has_more": has_more, "next_cursor": next_cursor})


@router.get("/{job_id}", response_model=responses.JobAnswer, responses=problems(401, 403, 404), summary="Look at a job")
async def get(request: Request, job_id: str, key: ImageKey, service: ServiceDep, settings: SettingsDep) -> Response:
    """Return the job as it stands."""
    job = await service.jobs.get(key.account_id, job_id)
    return JSONResponse(await show(service, job, base_url(request, settings)))


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=responses.JobAnswer,
    responses=problems(401, 403, 404, 409),
    summary="Stop a job",
)
async def cancel(request: Request, job_id: str, key: ImageKey, service: ServiceDep, settings: SettingsDep) -> Response:
    """Stop a queued job at once, a running one at its next block; answer when it has stopped, or after two seconds."""
    job = await service.jobs.cancel(key.account_id, job_id)
    return JSONResponse(await show(service, job, base_url(request, settings)), 202)


@router.delete(
    "/{job_id}", response_model=responses.Deleted, responses=problems(401, 403, 404, 409), summary="Remove a job"
)
async def remove(job_id: str, key: ImageKey, service: ServiceDep) -> responses.Deleted:
    """Remove a finished job and its pictures; the bill keeps what it cost."""
    await service.jobs.remove(key.account_id, job_id)
    return responses.Deleted(id=job_id, object="job", deleted=True)


async def show(
    service: Service,
    job: Job,
    origin: str,
    pictures: list[StoredImage] | None = None,
    *,
    is_listed: bool = False,
) -> dict[str, Any]:
    """Return a job as its client sees it; in lists with links alone, and without a place."""
    result = None
    if job.state == JobState.SUCCEEDED:
        rows = pictures if pictures is not None else await service.jobs.images_of(job)
        answer = await results.answer(service, job, rows, origin, as_links=is_listed) if rows else None
        result = answer.model_dump(exclude_unset=True) if answer else None
    place = {} if is_listed else await service.jobs.place(job)
    error = None
    if job.error_code is not None:
        error = {"code": job.error_code, "message": job.error_message}
    return {
        "id": job.id,
        "object": "job",
        "status": job.state.value,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "queue_position": place.get("queue_position"),
        "predicted_start": place.get("predicted_start"),
        "predicted_finish": place.get("predicted_finish"),
        "group_id": job.terms.group_id,
        "request": _request(job),
        "result": result,
        "error": error,
    }


def _request(job: Job) -> dict[str, Any]:
    request = job.request
    return {
        "model": job.terms.model,
        "prompt": request.prompt,
        "image_size": {"width": request.width, "height": request.height},
        "num_images": request.count,
        "num_inference_steps": request.steps,
        "seed": request.seed,
        "enable_safety_checker": request.check_safety,
        "output_format": request.image_format.value,
        "on_long_prompt": request.on_long_prompt.value,
        "priority": job.terms.priority.value,
    }
