"""`GET /v1/jobs/{id}/events`: the stream of a job's events. A client can resume it after any event.

The format is Server-Sent Events (WHATWG HTML, "Server-sent events"). The data of the final event is the job itself, as
`GET /v1/jobs/{id}` returns it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from allaprima.api.deps import ImageKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.v1.exchange import Exchange, ExchangeDep
from allaprima.domain.events import Event, EventId
from allaprima.domain.jobs import Job
from allaprima.errors import FieldProblem, GenerationFailed, ImageNotFound, InvalidRequest, JobNotFound

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: Seconds without an event after which the server sends a comment, so that proxies keep the connection open.
KEEP_ALIVE_S = 15.0
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: queued, running, step, preview, then succeeded, failed or cancelled.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The client has already received the final event."},
}


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=_STREAM | problems(400, 401, 403, 404),
    summary="Stream the events of a job",
)
async def watch(
    job_id: str,
    key: ImageKey,
    service: ServiceDep,
    exchange: ExchangeDep,
    last_event_id: Annotated[str | None, Header(description="Id of the last event that the client received.")] = None,
) -> Response:
    """Stream the queue position, start, steps, previews and end of a job. The stream closes after the end."""
    after = EventId.parse(last_event_id) if last_event_id else None
    if last_event_id and after is None:
        problem = "unknown event id; omit it to start from the beginning"
        raise InvalidRequest(FieldProblem("Last-Event-ID", problem))
    job = await service.jobs.get(key.account_id, job_id)
    if after is not None and after.is_last:
        return Response(status_code=204)
    stream = _stream(job, service.jobs.watch(job, after), exchange)
    # Without `no-transform`, a compressing proxy would hold back events until it has a kilobyte.
    headers = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(job: Job, events: AsyncGenerator[Event], exchange: Exchange) -> AsyncIterator[bytes]:
    """Yield events, and a comment after each `KEEP_ALIVE_S` without one."""
    following: asyncio.Task[Event] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=KEEP_ALIVE_S)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            data = await _end_of(job, event, exchange) if event.type.is_final else exchange.dialect.event(event)
            yield format_sse_event(event=event.type.value, id=str(event.id), data_str=json.dumps(data))
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        # A client that disconnects between two events no longer counts as a watcher.
        await events.aclose()


async def _end_of(job: Job, event: Event, exchange: Exchange) -> dict[str, Any]:
    try:
        return await exchange.show(await exchange.service.jobs.get(job.account_id, job.id))
    except (JobNotFound, GenerationFailed, ImageNotFound):
        # The job or one of its images was deleted in the meantime, so the event has only the job's final status.
        return {"id": job.id, "object": "job", "status": event.type.value}
