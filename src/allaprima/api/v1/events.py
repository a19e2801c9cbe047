"""`GET /v1/jobs/{id}/events`: one stream of what happens to a job, resumable at every event.

Server-Sent Events as browsers read them (WHATWG HTML, "Server-sent events"). The data of an end is the job itself, as
`GET /v1/jobs/{id}` shows it.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from allaprima.api.deps import ImageKey, ServiceDep, SettingsDep
from allaprima.api.errors import problems
from allaprima.api.http.base_url import base_url
from allaprima.api.v1.jobs import show
from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import Event, EventId
from allaprima.errors import FieldProblem, GenerationFailed, InvalidRequest, JobNotFound
from allaprima.service.app import Service
from allaprima.service.jobs.events import END, ENDS

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: Seconds of silence after which a comment keeps proxies from closing the stream.
KEEP_ALIVE_S = 15.0
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: queued, running, step, preview, then succeeded, failed or cancelled.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The client has seen the end."},
}


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=_STREAM | problems(400, 401, 403, 404),
    summary="Watch a job",
)
async def watch(
    request: Request,
    job_id: str,
    key: ImageKey,
    service: ServiceDep,
    settings: SettingsDep,
    last_event_id: Annotated[str | None, Header(description="The last event that the client has seen.")] = None,
) -> Response:
    """Tell of a job's place, start, steps and previews as they happen, and of its end; then close."""
    after = EventId.parse(last_event_id) if last_event_id else None
    if last_event_id and after is None:
        raise InvalidRequest(FieldProblem("Last-Event-ID", "is no id of an event of ours; leave it out to begin anew"))
    events = await service.jobs.watch(key.account_id, job_id, after)
    if after is not None and after.number >= END:
        return Response(status_code=204)
    origin = base_url(request, settings)
    stream = _stream(service, key, job_id, events, origin)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(
    service: Service, key: ApiKey, job_id: str, events: AsyncIterator[Event], origin: str
) -> AsyncIterator[bytes]:
    """Write events, and a comment now and then where there are none."""
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
            data = event.data
            if event.type in ENDS:
                try:
                    data = await show(service, await service.jobs.get(key.account_id, job_id), origin)
                except (JobNotFound, GenerationFailed):
                    # It, or a picture of it, was removed in this very moment; its end is still its end.
                    data = {"id": job_id, "object": "job", "status": event.type.value}
            yield format_sse_event(event=event.type.value, id=str(event.id), data_str=json.dumps(data))
    finally:
        if following is not None:
            following.cancel()
