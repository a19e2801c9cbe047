"""Waits for the job of a synchronous request."""

import asyncio
from contextlib import suppress

from fastapi import Request

from allaprima.api.http.request_id import set_request_id
from allaprima.api.v1.exchange import Exchange
from allaprima.domain.jobs import Job, JobState, Submission
from allaprima.errors import (
    Cancelled,
    Error,
    GenerationFailed,
    GenerationTimeout,
    IdempotencyInFlight,
    JobFinished,
    StartDeadlineMissed,
)

#: The error class of a failed job by its error code; every other code is a `GenerationFailed`.
_FAILURES: dict[str | None, type[Error]] = {StartDeadlineMissed.code: StartDeadlineMissed}


async def wait_for(job: Job, submission: Submission, exchange: Exchange, wait_s: float) -> Job:
    """Wait until a job has succeeded and return it. wait_s: longest wait in seconds.

    Raises `IdempotencyInFlight` if the job is unfinished and belongs to an earlier request with the same
    Idempotency-Key, `Cancelled` for a cancelled job, `GenerationFailed` or `StartDeadlineMissed` for a failed job, and
    the errors of `JobService.wait`.
    """
    if job.id != submission.job_id:
        exchange.headers["idempotent-replayed"] = "true"
        set_request_id(exchange.request, job.id)
        if not job.is_finished:
            raise await _in_flight(job, exchange)
    elif not job.is_finished:
        job = await _wait(job, submission, exchange, wait_s)
    # An unfinished job here is one whose cancellation the engine has not confirmed in time.
    if job.state == JobState.CANCELLED or not job.is_finished:
        raise Cancelled
    if job.state != JobState.SUCCEEDED:
        raise _FAILURES.get(job.error_code, GenerationFailed)(job.error_message)
    return job


async def _in_flight(job: Job, exchange: Exchange) -> IdempotencyInFlight:
    finish = (await exchange.service.jobs.positions.of(job)).predicted_finish
    return IdempotencyInFlight(retry_after_s=max(0.0, (finish or 0.0) - exchange.service.clock()))


async def _wait(job: Job, submission: Submission, exchange: Exchange, wait_s: float) -> Job:
    """Wait for a job; cancel it if the client disconnects and either asked for this or sent `store=false`.

    With `store=false` a wait that times out cancels the job too, because no client could fetch its images later.
    """
    service = exchange.service
    if not submission.cancel_on_disconnect and job.options.store:
        return await service.jobs.wait(job, wait_s)
    waiting = asyncio.ensure_future(service.jobs.wait(job, wait_s))
    leaving = asyncio.ensure_future(_disconnect(exchange.request))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        error = waiting.exception() if waiting.done() else None
        if waiting.done() and (job.options.store or not isinstance(error, GenerationTimeout)):
            return waiting.result()
        with suppress(JobFinished):
            await service.cancellation.cancel(job.account_id, job.id)
        job = await service.jobs.get(job.account_id, job.id)
        if error is not None and job.state != JobState.SUCCEEDED:
            raise error
        return job
    finally:
        waiting.cancel()
        leaving.cancel()


async def _disconnect(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
