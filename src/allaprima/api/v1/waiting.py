"""Waits for the job of a synchronous request."""

import asyncio
from contextlib import suppress

from fastapi import Request

from allaprima.api.http.request_id import set_request_id
from allaprima.api.v1.exchange import Exchange
from allaprima.domain.jobs import Job, JobState, Submission
from allaprima.domain.ports import Delivery, EphemeralResult
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
    elif submission.cancel_on_disconnect and not job.is_finished:
        job = await _wait_while_connected(job, exchange, wait_s)
    elif not job.is_finished:
        job = await exchange.service.jobs.wait(job, wait_s)
    if error := _failure(job):
        raise error
    return job


async def wait_for_result(job: Job, delivery: Delivery, exchange: Exchange, wait_s: float) -> EphemeralResult:
    """Wait for the result of a job with `store=false`. wait_s: longest wait in seconds.

    If the client disconnects or the wait times out, the job is cancelled, because no client could fetch its images
    later. Raises the errors of `wait_for`, except `IdempotencyInFlight`.
    """
    ended = asyncio.ensure_future(exchange.service.jobs.wait(job, wait_s))
    leaving = asyncio.ensure_future(_disconnect(exchange.request))
    try:
        await asyncio.wait((delivery.result, ended, leaving), return_when=asyncio.FIRST_COMPLETED)
        if delivery.result.done():
            return delivery.result.result()
        if ended.done() and not isinstance(ended.exception(), GenerationTimeout):
            job = ended.result()
        else:
            job = await _cancel(job, exchange)
            if ended.done():
                ended.result()
        raise _failure(job) or Cancelled()
    finally:
        for task in (ended, leaving):
            task.cancel()


async def _in_flight(job: Job, exchange: Exchange) -> IdempotencyInFlight:
    finish = (await exchange.service.jobs.positions.of(job)).predicted_finish
    return IdempotencyInFlight(retry_after_s=max(0.0, (finish or 0.0) - exchange.service.clock()))


async def _wait_while_connected(job: Job, exchange: Exchange, wait_s: float) -> Job:
    """Wait for a job; cancel it if the client disconnects."""
    waiting = asyncio.ensure_future(exchange.service.jobs.wait(job, wait_s))
    leaving = asyncio.ensure_future(_disconnect(exchange.request))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else await _cancel(job, exchange)
    finally:
        for task in (waiting, leaving):
            task.cancel()


async def _cancel(job: Job, exchange: Exchange) -> Job:
    """Cancel a job, and return it as it is then: it may have ended before."""
    with suppress(JobFinished):
        await exchange.service.cancellation.cancel(job.account_id, job.id)
    return await exchange.service.jobs.get(job.account_id, job.id)


def _failure(job: Job) -> Error | None:
    """Return the error that reports the end of a job, or None for a succeeded one."""
    if job.state == JobState.SUCCEEDED:
        return None
    # An unfinished job here is one whose cancellation the engine has not confirmed in time.
    if job.state == JobState.CANCELLED or not job.is_finished:
        return Cancelled()
    return _FAILURES.get(job.error_code, GenerationFailed)(job.error_message)


async def _disconnect(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
