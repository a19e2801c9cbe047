"""`/v1/jobs`: submits, reads, lists, cancels and deletes jobs; `/v1/groups` cancels groups of jobs."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from allaprima.api.deps import ImageKey, ServiceDep
from allaprima.api.dialects.aiml.responses import EstimateResponse, JobResponse, JobsPage
from allaprima.api.errors import problems
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.openapi import request_body
from allaprima.api.http.pagination import Cursor, write_cursor
from allaprima.api.http.query import PageSize, QueryModel, one_of, query_of
from allaprima.api.http.request_id import set_request_id
from allaprima.api.v1.exchange import ExchangeDep
from allaprima.api.v1.submission import ReadJobSubmission
from allaprima.domain.jobs import JobFilter, JobState

router = APIRouter(prefix="/v1", tags=["jobs"])

#: Bytes of jobs after which a page ends.
MAX_PAGE_BYTES = 1_000_000


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobResponse,
    responses={
        200: {"model": EstimateResponse, "description": "With dry_run: a cost and time estimate."},
        **problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra=request_body(),
    summary="Submit a job",
)
async def create(submission: ReadJobSubmission, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Queue a job and return it immediately. The job survives a crash of the server."""
    if submission.dry_run:
        return exchange.reply(exchange.dialect.estimate(await service.admission.estimate(submission)))
    job = await service.admission.submit(submission)
    if job.id != submission.job_id:
        exchange.headers["idempotent-replayed"] = "true"
        set_request_id(exchange.request, job.id)
    shown = await exchange.show(job)
    return exchange.reply(shown, 202, location=f"{exchange.base_url}/v1/jobs/{job.id}", x_model=job.request.model)


class JobsQuery(QueryModel):
    """The parameters of the list of jobs."""

    status: Annotated[JobState, one_of(JobState)] | None = Field(None, description="Only jobs in this state.")
    group_id: str | None = Field(None, description="Only jobs of this group.")
    key_prefix: str | None = Field(None, description="Only jobs submitted with the key of this prefix.")
    limit: PageSize = Field(20, description="Largest number of jobs per page.")
    cursor: Cursor | None = Field(None, description="The next_cursor of the previous page.")


@router.get("/jobs", response_model=JobsPage, responses=problems(400, 401, 403, 404), summary="List jobs, newest first")
async def list_jobs(
    key: ImageKey, service: ServiceDep, exchange: ExchangeDep, query: Annotated[JobsQuery, query_of(JobsQuery)]
) -> Response:
    """Return a page of the account's jobs: `limit` of them, or fewer if they are longer than a megabyte together."""
    key_id = None
    if query.key_prefix is not None:
        key_id = (await service.keys.find_any(query.key_prefix, key.account_id)).id
    wanted = JobFilter(
        state=query.status,
        group_id=query.group_id,
        key_id=key_id,
        before=query.cursor,
    )
    found = await service.jobs.page(key.account_id, wanted, query.limit + 1)
    page, has_more = found[: query.limit], len(found) > query.limit
    images = await service.images.of_all(page)
    shown: list[dict[str, Any]] = []
    size = 0
    for job in page:
        body = await exchange.show(job, images[job.id])
        size += len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if shown and size > MAX_PAGE_BYTES:
            has_more = True
            break
        shown.append(body)
    next_cursor = write_cursor(page[len(shown) - 1].id) if has_more else None
    return exchange.reply({"object": "list", "data": shown, "has_more": has_more, "next_cursor": next_cursor})


@router.get("/jobs/{job_id}", response_model=JobResponse, responses=problems(401, 403, 404), summary="Read a job")
async def read(job_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Return the current state of a job."""
    return exchange.reply(await exchange.show(await service.jobs.get(key.account_id, job_id)))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    response_model=JobResponse,
    responses=problems(401, 403, 404, 409),
    summary="Cancel a job",
)
async def cancel(job_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Cancel a job. A queued job ends immediately; the response waits up to two seconds until a running job ends."""
    job = await service.cancellation.cancel(key.account_id, job_id)
    return exchange.reply(await exchange.show(job), 202)


@router.delete("/jobs/{job_id}", responses=problems(401, 403, 404, 409), summary="Delete a job")
async def remove(job_id: str, key: ImageKey, service: ServiceDep) -> Deleted:
    """Delete a finished job and its images. Its charge remains in the ledger."""
    await service.jobs.remove(key.account_id, job_id)
    return Deleted(id=job_id, object="job", deleted=True)


@router.post(
    "/groups/{group_id}/cancel",
    status_code=202,
    response_model=list[JobResponse],
    responses=problems(401, 403, 404),
    summary="Cancel all jobs of a group",
)
async def cancel_group(group_id: str, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Cancel every unfinished job of a group, and return the cancelled jobs."""
    cancelled = await service.cancellation.cancel_group(key.account_id, group_id)
    images = await service.images.of_all(cancelled)
    shown: list[dict[str, Any]] = [await exchange.show(job, images[job.id]) for job in cancelled]
    return exchange.reply(shown, 202)
