"""`/v1/groups`: jobs that were submitted under one name."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from allaprima.api.deps import ImageKey, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml.responses import JobAnswer
from allaprima.api.errors import problems
from allaprima.api.http.base_url import base_url
from allaprima.api.v1.jobs import show

router = APIRouter(prefix="/v1/groups", tags=["jobs"])


@router.post(
    "/{group_id}/cancel",
    status_code=202,
    response_model=list[JobAnswer],
    responses=problems(401, 403),
    summary="Stop all jobs of a group",
)
async def cancel(
    request: Request, group_id: str, key: ImageKey, service: ServiceDep, settings: SettingsDep
) -> Response:
    """Stop every job of the group that has not ended; return those that were stopped."""
    stopped = await service.jobs.cancel_group(key.account_id, group_id)
    origin = base_url(request, settings)
    shown: list[dict[str, Any]] = [await show(service, job, origin, is_listed=True) for job in stopped]
    return JSONResponse(shown, 202)
