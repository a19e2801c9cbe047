"""`/v2/usage`, `/v2/usage/detail` and `/v2/logs`: usage in the platform's form; `/v2/usage/by-key`: by key and day."""

from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from allaprima.api.deps import CallerKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.query import ModelIds, Offset, PageSize, TimeZone, one_of, query_of
from allaprima.api.v1.time_range import TimeRangeQuery, usage_range
from allaprima.domain.billing import CURRENCY, to_usd
from allaprima.domain.fields import refusal
from allaprima.domain.jobs import JobState
from allaprima.domain.timestamps import iso
from allaprima.domain.usage import UsageBucket, UsageRange, UsageRecord
from allaprima.service.accounts.usage import Total, by_day, by_day_and_model, by_model, total

router = APIRouter(tags=["usage"])

GROUPINGS = ("day", "model", "day,model")
LOG_STATES = ("succeeded", "failed")
#: The platform's token counts, always zero because images are not charged by tokens.
NO_TOKENS = {"input": 0, "output": 0, "total": 0}
#: Requests to `/v2/logs` that a key may make per minute.
LOGS_PER_MINUTE = 200
_EPOCH = date(1970, 1, 1).toordinal()


class UsageDetailQuery(TimeRangeQuery):
    """The parameters of `/v2/usage/detail`."""

    group_by: Annotated[Literal["day", "model", "day,model"], one_of(GROUPINGS)] | None = Field(
        None, description="Adds totals by day, by model or by both."
    )
    tz: TimeZone | None = Field(
        None,
        description="Time zone of the days: the exact name of an IANA time zone, such as Europe/Berlin. Default: UTC.",
    )


def _log_states(values: list[str]) -> list[str]:
    if any(value not in LOG_STATES for value in values):
        raise refusal("Invalid enum value. Expected 'succeeded' | 'failed', repeated for both")
    return values


class LogsQuery(TimeRangeQuery):
    """The parameters of `/v2/logs`."""

    model: ModelIds = Field(default=[], description="Only requests for this model; may be repeated.")
    status: Annotated[
        list[str],
        BeforeValidator(_log_states),
        WithJsonSchema({"type": "array", "items": {"type": "string", "enum": list(LOG_STATES)}}),
    ] = Field(default=[], description="Only requests with this status; may be repeated.")
    limit: PageSize = Field(50, description="Largest number of requests per page.")
    offset: Offset = Field(0, description="Number of requests skipped.")


@router.get("/v2/usage", responses=problems(400, 401, 403, 404), summary="Show total usage")
async def usage(
    key: CallerKey, service: ServiceDep, query: Annotated[TimeRangeQuery, query_of(TimeRangeQuery)]
) -> dict[str, Any]:
    """Return the spending in a time range, of one key or of the whole account."""
    time_range = await usage_range(query, key, service)
    return _totals(time_range, query.key_prefix, await service.usage.sums(time_range))


@router.get("/v2/usage/detail", responses=problems(400, 401, 403, 404), summary="Show usage by model and day")
async def detail(
    key: CallerKey, service: ServiceDep, query: Annotated[UsageDetailQuery, query_of(UsageDetailQuery)]
) -> dict[str, Any]:
    """Return the total usage and the usage by model; with `group_by` also by day."""
    time_range = await usage_range(query, key, service)
    sums = await service.usage.sums(time_range)
    models = [
        {"model": model, "spend": to_usd(found.credits), "requests": found.charged}
        for model, found in by_model(sums).items()
    ]
    body = _totals(time_range, query.key_prefix, sums) | {"models": models}
    return body if query.group_by is None else body | {"groups": _groups(query, sums)}


class KeyUsageEntry(BaseModel):
    """The usage of one key on one day."""

    day: str = Field(description="Date in UTC.")
    key_prefix: str
    key_name: str | None
    requests: int = Field(description="Finished requests.")
    images: int = Field(description="Images that were generated and not withheld.")
    compute_s: float = Field(description="Seconds that the engine generated.")


class KeyUsageResponse(BaseModel):
    """The usage by key and day, newest day first."""

    start: str
    end: str
    data: list[KeyUsageEntry]


@router.get(
    "/v2/usage/by-key", responses=problems(400, 401, 403, 404), summary="Show images and compute seconds by key and day"
)
async def usage_by_key(
    key: CallerKey, service: ServiceDep, query: Annotated[TimeRangeQuery, query_of(TimeRangeQuery)]
) -> KeyUsageResponse:
    """Return requests, images and compute seconds of each key on each day (UTC) of a time range with usage."""
    time_range = await usage_range(query, key, service)
    keys = {one.id: one for one in await service.keys.all(key.account_id)}
    data = [
        KeyUsageEntry(
            day=date.fromordinal(_EPOCH + one.day).isoformat(),
            key_prefix=keys[one.key_id].prefix,
            key_name=keys[one.key_id].name,
            requests=one.requests,
            images=one.images,
            compute_s=round(one.compute_s, 3),
        )
        for one in await service.usage.by_key(time_range)
        if one.key_id in keys
    ]
    return KeyUsageResponse(start=iso(time_range.start), end=iso(time_range.end), data=data)


@router.get("/v2/logs", responses=problems(400, 401, 403, 404, 429), summary="List finished requests, newest first")
async def logs(key: CallerKey, service: ServiceDep, query: Annotated[LogsQuery, query_of(LogsQuery)]) -> dict[str, Any]:
    """Return finished requests. Failed requests cost nothing."""
    time_range = await usage_range(query, key, service)
    service.rates.take(f"logs/{key.id}", LOGS_PER_MINUTE)
    has_succeeded = None if len(set(query.status)) != 1 else query.status[0] == "succeeded"
    rows, count = await service.usage.page(time_range, query.model, has_succeeded, query.offset, query.limit)
    # The sums, which are counted, outlive the requests of an erased account.
    has_more = bool(rows) and query.offset + len(rows) < count
    pagination = {"limit": query.limit, "offset": query.offset, "total": count, "has_more": has_more}
    return {"data": [_log(row) for row in rows], "pagination": pagination}


def _groups(query: UsageDetailQuery, sums: list[UsageBucket]) -> list[dict[str, Any]]:
    zone = query.tz or ZoneInfo("UTC")
    if query.group_by == "day":
        return [{"day": day} | _group(found) for day, found in by_day(sums, zone).items()]
    if query.group_by == "model":
        return [{"model": model} | _group(found) for model, found in by_model(sums).items()]
    pairs = by_day_and_model(sums, zone).items()
    return [{"day": day, "model": model} | _group(found) for (day, model), found in pairs]


def _totals(time_range: UsageRange, prefix: str | None, sums: list[UsageBucket]) -> dict[str, Any]:
    whole = total(sums)
    return {
        "api_key_prefix": prefix,
        "start": iso(time_range.start),
        "end": iso(time_range.end),
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
