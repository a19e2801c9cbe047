"""`/v1/jobs`: the asynchronous form of the images endpoint. Submit, read, list, cancel, remove. And groups of jobs."""

from typing import Any

from fastapi import APIRouter, Request, Response

from allaprima.api.deps import ImageKey, ServiceDep
from allaprima.api.dialects.aiml.responses import EstimateResponse, JobResponse, JobsPage
from allaprima.api.errors import problems
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.openapi import request_body
from allaprima.api.http.pagination import read_cursor, write_cursor
from allaprima.api.http.query import Parameters, documented, find_key
from allaprima.api.http.request_id import set_request_id
from allaprima.api.v1.exchange import ExchangeDep
from allaprima.api.v1.submission import ReadJobSubmission
from allaprima.domain.jobs import JobFilter, JobState

router = APIRouter(prefix="/v1", tags=["jobs"])

_PAGE = 20


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobResponse,
    responses={
        200: {"model": EstimateResponse, "description": "With dry_run: a cost and time estimate."},
        **problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=request_body(),
    summary="Submit a job",
)
async def create(submission: ReadJobSubmission, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Accept a request and answer at once; the job is then in the queue, and survives a crash of the server."""
    if submission.dry_run:
        return exchange.reply(exchange.dialect.estimate(await service.admission.estimate(submission)))
    job = await service.admission.submit(submission)
    if job.id != submission.job_id:
        exchange.headers["idempotent-replayed"] = "true"
        set_request_id(exchange.request, job.id)
    shown = await exchange.show(job)
    return exchange.reply(shown, 202, location=f"/v1/jobs/{job.id}", x_model=job.request.model)


_LIST = [
    documented("status", "Only this state: queued, running, succeeded, failed or cancelled."),
    documented("group_id", "Only this group."),
    documented("key_prefix", "Only jobs that this key of the account submitted."),
    documented("limit", "1 to 100; 20 by default."),
    documented("cursor", "next_cursor of the previous page."),
]


@router.get(
    "/jobs",
    response_model=JobsPage,
    responses=problems(400, 401, 403, 404),
    openapi_extra={"parameters": _LIST},
    summary="List jobs, newest first",
)
async def list_jobs(request: Request, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Return a page of the account's jobs."""
    parameters = Parameters(request)
    status = parameters.choice("status", [state.value for state in JobState])
    group_id, prefix = parameters.one("group_id"), parameters.one("key_prefix")
    limit = parameters.integer("limit", _PAGE, 1, 100)
    cursor = parameters.one("cursor")
    before = None if cursor is None else read_cursor(cursor)
    if cursor is not None and before is None:
        parameters.refuse("cursor", "invalid cursor; omit it for the first page")
    parameters.finish()
    wanted = JobFilter(
        state=JobState(status) if status else None,
        group_id=group_id,
        key_id=None if prefix is None else await find_key(service, key.account_id, prefix),
        before=before,
    )
    found = await service.jobs.page(key.account_id, wanted, limit + 1)
    page, has_more = found[:limit], len(found) > limit
    images = await service.images.of_all(page)
    shown = [await exchange.show(job, images[job.id]) for job in page]
    next_cursor = write_cursor(page[-1].id) if has_more else None
    return exchange.reply({"object": "list", "data": shown, "has_more": has_more, "next_cursor": next_cursor})


@router.get("/jobs/{job_id}", response_model=JobResponse, responses=problems(401, 403, 404), summary="Read a job")
async def read(job_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Return the job as it stands."""
    return exchange.reply(await exchange.show(await service.jobs.get(key.account_id, job_id)))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobResponse,
    responses=problems(401, 403, 404, 409),
    summary="Cancel a job",
)
async def cancel(job_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Cancel a queued job at once, a running one at its next block; answer when it stopped, or after two seconds."""
    job = await service.cancellation.cancel(key.account_id, job_id)
    return exchange.reply(await exchange.show(job), 202)


@router.delete("/jobs/{job_id}", responses=problems(401, 403, 404, 409), summary="Remove a job")
async def remove(job_id: str, key: ImageKey, service: ServiceDep) -> Deleted:
    """Remove a finished job and its images; the bill keeps what it cost."""
    await service.jobs.remove(key.account_id, job_id)
    return Deleted(id=job_id, object="job", deleted=True)


@router.post(
    "/groups/{group_id}/cancel",
    status_code=202,
    response_model=list[JobResponse],
    responses=problems(401, 403),
    summary="Cancel all jobs of a group",
)
async def cancel_group(group_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Cancel every unfinished job of the group; return those that were cancelled."""
    cancelled = await service.cancellation.cancel_group(key.account_id, group_id)
    images = await service.images.of_all(cancelled)
    shown: list[dict[str, Any]] = [await exchange.show(job, images[job.id]) for job in cancelled]
    return exchange.reply(shown, 202)
