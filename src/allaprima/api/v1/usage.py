"""`/v2/usage`, `/v2/usage/detail` and `/v2/logs`: what was used, as the platform shows it."""

from typing import Any

from fastapi import APIRouter, Request

from allaprima.api.deps import CallerKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.query import Parameters, documented, read_window, read_zone
from allaprima.api.v1.keys import iso
from allaprima.domain.billing import UsageBucket, UsageRange, UsageRecord, to_usd
from allaprima.domain.jobs import JobState
from allaprima.service.accounts.usage import Total, by_day, by_day_and_model, by_model, total

router = APIRouter(tags=["usage"])

CURRENCY = "USD"
GROUPINGS = ("day", "model", "day,model")
#: An image model reads and writes no tokens that anybody is charged for.
NO_TOKENS = {"input": 0, "output": 0, "total": 0}
#: Requests for logs that a key may make in a minute.
LOGS_PER_MINUTE = 200
MAX_MODELS = 50


_WINDOW = [
    documented("period", "A positive integer and h or d, such as 24h; or start and end."),
    documented("start", "ISO 8601; UTC where no offset is given."),
    documented("end", "ISO 8601; at most 92 days after start."),
    documented("key_prefix", "Default: the asking key; all keys for a management key, which may name any of them."),
]
_DETAIL = [
    *_WINDOW,
    documented("group_by", "day, model or day,model."),
    documented("tz", "The time zone of the days, an IANA name."),
]
_LOGS = [
    *_WINDOW,
    documented("model", "These alone; may be repeated.", is_repeated=True),
    documented("status", "succeeded or failed; may be repeated.", is_repeated=True),
    documented("limit", "1 to 100."),
    documented("offset", "How many to leave out."),
]


@router.get(
    "/v2/usage",
    responses=problems(400, 401, 403, 404),
    openapi_extra={"parameters": _WINDOW},
    summary="UsageBucket up what was used",
)
async def usage(request: Request, key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return what the asking key spent; with a management key the account, or one of its keys."""
    window, prefix = await read_window(Parameters(request), service, key)
    return _head(window, prefix, await service.usage.sums(window))


@router.get(
    "/v2/usage/detail",
    responses=problems(400, 401, 403, 404),
    openapi_extra={"parameters": _DETAIL},
    summary="UsageBucket up what was used by model and day",
)
async def detail(request: Request, key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the same by model, and by day where asked."""
    parameters = Parameters(request)
    grouping = parameters.choice("group_by", GROUPINGS)
    zone = read_zone(parameters)
    window, prefix = await read_window(parameters, service, key)
    sums = await service.usage.sums(window)
    models = [
        {"model": model, "spend": to_usd(found.credits), "requests": found.charged}
        for model, found in by_model(sums).items()
    ]
    groups: list[dict[str, Any]] | None = None
    if grouping == "day":
        groups = [{"day": day} | _group(found) for day, found in by_day(sums, zone).items()]
    elif grouping == "model":
        groups = [{"model": model} | _group(found) for model, found in by_model(sums).items()]
    elif grouping is not None:
        pairs = by_day_and_model(sums, zone).items()
        groups = [{"day": day, "model": model} | _group(found) for (day, model), found in pairs]
    body = _head(window, prefix, sums) | {"models": models}
    return body if groups is None else body | {"groups": groups}


@router.get(
    "/v2/logs",
    responses=problems(400, 401, 403, 404, 429),
    openapi_extra={"parameters": _LOGS},
    summary="List finished requests, newest first",
)
async def logs(request: Request, key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return finished requests; failed ones cost nothing."""
    service.rates.take(f"logs/{key.id}", LOGS_PER_MINUTE)
    parameters = Parameters(request)
    models, statuses = parameters.many("model"), parameters.many("status")
    if len(models) > MAX_MODELS or any("," in model for model in models):
        parameters.refuse("model", f"must be repeated for each model, at most {MAX_MODELS} times; commas don't count")
    if any(status not in ("succeeded", "failed") for status in statuses):
        parameters.refuse("status", "Invalid enum value. Expected 'succeeded' | 'failed', repeated for both")
    limit = parameters.integer("limit", 50, 1, 100)
    offset = parameters.integer("offset", 0, 0, 10**9)
    window, _ = await read_window(parameters, service, key)
    has_succeeded = None if len(set(statuses)) != 1 else statuses[0] == "succeeded"
    rows, count = await service.usage.page(window, models, has_succeeded, offset, limit)
    has_more = offset + len(rows) < count
    pagination = {"limit": limit, "offset": offset, "total": count, "has_more": has_more}
    return {"data": [_log(row) for row in rows], "pagination": pagination}


def _head(window: UsageRange, prefix: str | None, sums: list[UsageBucket]) -> dict[str, Any]:
    whole = total(sums)
    return {
        "api_key_prefix": prefix,
        "start": iso(window.start),
        "end": iso(window.end),
        "spend": to_usd(whole.credits),
        "currency": CURRENCY,
        "requests": whole.charged,
    }


def _group(found: Total) -> dict[str, Any]:
    return {
        "spend": to_usd(found.credits),
        "tokens": NO_TOKENS,
        "requests": {
            "total": found.succeeded + found.failed,
            "charged": found.charged,
            "succeeded": found.succeeded,
            "failed": found.failed,
        },
    }


def _log(row: UsageRecord) -> dict[str, Any]:
    return {
        "created": iso(row.created_at),
        "status": "succeeded" if row.state == JobState.SUCCEEDED else "failed",
        "origin": row.source,
        "model": row.model,
        "cost": {"usd": to_usd(row.credits), "credits": row.credits},
        "tokens": NO_TOKENS,
        "request_id": None,
        "inference_id": row.job_id,
        "client_request_id": row.client_request_id,
    }
