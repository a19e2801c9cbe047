"""The usage of an account over a time range, as sums and row by row.

A sum adds up rows of `usage_buckets` (15 minutes each) for the whole buckets of the range, and rows of `usage` for the
partial buckets at its two ends. So a sum over months is exact and reads some thousand rows for any number of requests.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Row, Select, case, func, select, union_all

from allaprima.domain.accounts import LimitPeriod, period_start
from allaprima.domain.jobs import JobState
from allaprima.domain.usage import KeyUsage, UsageBucket, UsageRange, UsageRecord
from allaprima.store.charges import BUCKET_S
from allaprima.store.database import Repository, reads
from allaprima.store.dialect import Total
from allaprima.store.schema import api_keys, usage, usage_buckets

DAY_S = 86_400
_RECORD_NAMES = tuple(field.name for field in fields(UsageRecord))
_BUCKET_NAMES = tuple(field.name for field in fields(UsageBucket))


class UsageRepository(Repository):
    """Reads what `charges.settle` wrote."""

    @reads
    def sums(self, connection: Connection, wanted: UsageRange) -> list[UsageBucket]:
        """Return usage by 15-minute bucket and model, oldest first."""
        return _sums(connection, wanted)

    @reads
    def by_key(self, connection: Connection, wanted: UsageRange) -> list[KeyUsage]:
        """Return usage by day (UTC) and key, newest day first."""
        both = _in_buckets(wanted).subquery()
        day = (both.c.start // DAY_S).label("day")
        requests = Total(both.c.succeeded + both.c.failed)
        query = select(day, both.c.key_id, requests, Total(both.c.images), func.sum(both.c.compute_s))
        query = query.group_by(day, both.c.key_id).order_by(day.desc(), both.c.key_id)
        return [KeyUsage(*row) for row in connection.execute(query)]

    @reads
    def page(
        self,
        connection: Connection,
        wanted: UsageRange,
        models: Sequence[str],
        has_succeeded: bool | None,
        offset: int,
        limit: int,
    ) -> tuple[list[UsageRecord], int]:
        """Return one page of finished requests, newest first, and the number of requests on all pages.

        models: only requests of these models; an empty sequence selects all. has_succeeded: only succeeded (True) or
        only failed and cancelled requests (False); None selects both.
        """
        query = select(*(usage.c[name] for name in _RECORD_NAMES)).where(*_in_range(wanted, wanted.start, wanted.end))
        if models:
            query = query.where(usage.c.model.in_(models))
        if has_succeeded is not None:
            is_success = usage.c.state == JobState.SUCCEEDED.value
            query = query.where(is_success if has_succeeded else ~is_success)
        query = query.order_by(usage.c.created_at.desc(), usage.c.job_id.desc()).offset(offset).limit(limit)
        records = [_record(row) for row in connection.execute(query)]
        return records, _count(connection, wanted, models, has_succeeded)

    @reads
    def spent_this_month(self, connection: Connection, account_id: str, now: float) -> dict[str, int]:
        """Return the credits charged to each key of an account in the current UTC month, by key id.

        A key without a charge in the month may be missing.
        """
        wanted = select(api_keys.c.id, api_keys.c.month_spent).where(
            api_keys.c.account_id == account_id, api_keys.c.month_start >= period_start(LimitPeriod.MONTH, now)
        )
        return {key_id: int(credits_) for key_id, credits_ in connection.execute(wanted)}

    @reads
    def durations(self, connection: Connection, since: float) -> dict[str, list[float]]:
        """Return the durations in seconds of the requests that succeeded since a time, by model, shortest first."""
        wanted = select(usage.c.model, usage.c.duration_s).where(
            usage.c.created_at >= since, usage.c.state == JobState.SUCCEEDED.value
        )
        found: dict[str, list[float]] = {}
        for model, duration_s in connection.execute(wanted.order_by(usage.c.duration_s)):
            found.setdefault(model, []).append(duration_s)
        return found


def _record(row: Row[Any]) -> UsageRecord:
    values = {name: getattr(row, name) for name in _RECORD_NAMES}
    return UsageRecord(**values | {"state": JobState(row.state)})


def _in_range(wanted: UsageRange, start: float, end: float) -> list[ColumnElement[bool]]:
    found = [usage.c.account_id == wanted.account_id, usage.c.created_at >= start, usage.c.created_at < end]
    return found + ([usage.c.key_id == wanted.key_id] if wanted.key_id else [])


def _sums(connection: Connection, wanted: UsageRange) -> list[UsageBucket]:
    found = connection.execute(_sum_query(wanted))
    return [UsageBucket(**{name: getattr(row, name) for name in _BUCKET_NAMES}) for row in found]


def _sum_query(wanted: UsageRange) -> Select[Any]:
    """Return the query that sums usage by bucket and model."""
    both = _in_buckets(wanted).subquery()
    summed = [Total(both.c[name]).label(name) for name in _BUCKET_NAMES[2:]]
    return select(both.c.start, both.c.model, *summed).group_by(both.c.start, both.c.model).order_by(both.c.start)


def _in_buckets(wanted: UsageRange) -> CompoundSelect[Any]:
    """Return the query of whole buckets from `usage_buckets`, and of the requests of partial ones from `usage`."""
    first = min(-(-wanted.start // BUCKET_S) * BUCKET_S, wanted.end)
    last = max(wanted.end // BUCKET_S * BUCKET_S, first)
    buckets = usage_buckets.c
    whole = select(*(buckets[name] for name in (*_BUCKET_NAMES, "key_id", "images", "compute_s"))).where(
        buckets.account_id == wanted.account_id, buckets.start >= first, buckets.start < last
    )
    if wanted.key_id:
        whole = whole.where(buckets.key_id == wanted.key_id)
    is_success = case((usage.c.state == JobState.SUCCEEDED.value, 1), else_=0)
    single = select(
        usage.c.bucket.label("start"),
        usage.c.model,
        is_success.label("succeeded"),
        (1 - is_success).label("failed"),
        case((usage.c.images > 0, 1), else_=0).label("charged"),
        usage.c.credits,
        usage.c.key_id,
        usage.c.images,
        usage.c.compute_s,
    )
    ends = ((wanted.start, first), (last, wanted.end))
    return union_all(whole, *(single.where(*_in_range(wanted, *end)) for end in ends))


def _count(connection: Connection, wanted: UsageRange, models: Sequence[str], has_succeeded: bool | None) -> int:
    chosen = [one for one in _sums(connection, wanted) if not models or one.model in models]
    succeeded, failed = sum(one.succeeded for one in chosen), sum(one.failed for one in chosen)
    return {True: succeeded, False: failed, None: succeeded + failed}[has_succeeded]
