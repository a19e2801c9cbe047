"""A synchronous request is a job and a wait."""

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

#: Failures that are answered as what they are, by the code in the job's row; any other is `GenerationFailed`.
_FAILURES: dict[str | None, type[Error]] = {StartDeadlineMissed.code: StartDeadlineMissed}


async def wait_for(job: Job, submission: Submission, exchange: Exchange, wait_s: float) -> Job:
    """Return the job when it has succeeded.

    Raises `IdempotencyInFlight` for the unfinished job of an equal request, what `JobService.wait` does, and what a job
    without images failed of.
    """
    if job.id != submission.job_id:
        exchange.headers["idempotent-replayed"] = "true"
        set_request_id(exchange.request, job.id)
        if not job.is_finished:
            raise await _in_flight(job, exchange)
    elif not job.is_finished:
        job = await _wait(job, submission, exchange, wait_s)
    # Its cancellation was requested; the engine has not confirmed it in time.
    if job.state == JobState.CANCELLED or not job.is_finished:
        raise Cancelled
    if job.state != JobState.SUCCEEDED:
        raise _FAILURES.get(job.error_code, GenerationFailed)(job.error_message)
    return job


async def _in_flight(job: Job, exchange: Exchange) -> IdempotencyInFlight:
    finish = (await exchange.service.jobs.positions.of(job)).predicted_finish
    return IdempotencyInFlight(retry_after_s=max(0.0, (finish or 0.0) - exchange.service.clock()))


async def _wait(job: Job, submission: Submission, exchange: Exchange, wait_s: float) -> Job:
    """Wait; a job that is of no use without its client is cancelled when the client disconnects.

    That is what the client asked, or `store=false`: then no one could fetch the images later, and a wait that times out
    cancels the job too.
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
