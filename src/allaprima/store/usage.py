"""The usage of an account over a window of time, as sums and row by row.

Whole quarters of an hour come from `usage_slots`, the two broken ones at the ends from the rows themselves, so that a
sum over months touches some thousand rows however many requests there were, and is still exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select, union_all

from allaprima.domain.accounts import LimitPeriod, period_start
from allaprima.domain.jobs import JobState
from allaprima.store.charges import SLOT_S
from allaprima.store.database import Database, reads
from allaprima.store.schema import keys, usage, usage_slots


@dataclass(frozen=True, slots=True)
class Window:
    """Whose usage, and of when: `start` <= time < `end`, unix seconds."""

    account_id: str
    start: float
    end: float
    #: One key's alone.
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """Usage of one model in one quarter of an hour, or part of one."""

    #: Start of the quarter, unix seconds.
    slot: int
    model: str
    succeeded: int
    failed: int
    charged: int
    credits: int


@dataclass(frozen=True, slots=True)
class LogRow:
    """One finished request."""

    job_id: str
    key_id: str
    model: str
    state: JobState
    credits: int
    origin: str
    client_request_id: str | None
    created_at: float


class UsageBook:
    """Reads what `bill.settle` wrote."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def sums(self, connection: Connection, window: Window) -> list[Sum]:
        """Return the window's usage by quarter and model, oldest first."""
        return [Sum(*row) for row in connection.execute(_sums(window))]

    @reads
    def page(
        self,
        connection: Connection,
        window: Window,
        models: Sequence[str],
        has_succeeded: bool | None,
        offset: int,
        limit: int,
    ) -> tuple[list[LogRow], int]:
        """Return some requests, newest first, and how many there are in all.

        models: these alone; any, if empty. has_succeeded: those alone that did, or did not.
        """
        wanted = select(*(usage.c[name] for name in LogRow.__dataclass_fields__)).where(
            *_rows_of(window, window.start, window.end)
        )
        if models:
            wanted = wanted.where(usage.c.model.in_(models))
        if has_succeeded is not None:
            is_success = usage.c.state == JobState.SUCCEEDED.value
            wanted = wanted.where(is_success if has_succeeded else ~is_success)
        wanted = wanted.order_by(usage.c.created_at.desc(), usage.c.job_id.desc()).offset(offset).limit(limit)
        rows = [_log_row(row) for row in connection.execute(wanted)]
        total = _count(connection, window, models, has_succeeded)
        return rows, total

    @reads
    def spent_this_month(self, connection: Connection, account_id: str, now: float) -> dict[str, int]:
        """Return the credits that each of an account's keys was charged in this month of UTC. Others may be missing."""
        wanted = select(keys.c.id, keys.c.month_spent).where(
            keys.c.account_id == account_id, keys.c.month_start >= period_start(LimitPeriod.MONTH, now)
        )
        return {key_id: int(credits_) for key_id, credits_ in connection.execute(wanted)}

    @reads
    def durations(self, connection: Connection, since: float) -> dict[str, list[float]]:
        """Return the seconds of each request that succeeded since then, by model, shortest first."""
        wanted = select(usage.c.model, usage.c.duration_s).where(
            usage.c.created_at >= since, usage.c.state == JobState.SUCCEEDED.value
        )
        found: dict[str, list[float]] = {}
        for model, duration_s in connection.execute(wanted.order_by(usage.c.duration_s)):
            found.setdefault(model, []).append(duration_s)
        return found


def _log_row(row: Row[Any]) -> LogRow:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    return LogRow(**values | {"state": JobState(values["state"])})


def _rows_of(window: Window, start: float, end: float) -> list[ColumnElement[bool]]:
    found = [usage.c.account_id == window.account_id, usage.c.created_at >= start, usage.c.created_at < end]
    return found + ([usage.c.key_id == window.key_id] if window.key_id else [])


def _sums(window: Window) -> Select[Any]:
    """Whole quarters from the sums, what sticks out at the two ends from the rows."""
    first = min(-(-window.start // SLOT_S) * SLOT_S, window.end)
    last = max(window.end // SLOT_S * SLOT_S, first)
    slots = usage_slots.c
    names = ("slot", "model", "succeeded", "failed", "charged", "credits")
    whole = select(*(slots[name] for name in names)).where(
        slots.account_id == window.account_id, slots.slot >= first, slots.slot < last
    )
    if window.key_id:
        whole = whole.where(slots.key_id == window.key_id)
    is_success = case((usage.c.state == JobState.SUCCEEDED.value, 1), else_=0)
    single = select(
        usage.c.slot,
        usage.c.model,
        is_success.label("succeeded"),
        (1 - is_success).label("failed"),
        case((usage.c.images > 0, 1), else_=0).label("charged"),
        usage.c.credits,
    )
    ends = ((window.start, first), (last, window.end))
    both = union_all(whole, *(single.where(*_rows_of(window, *end)) for end in ends)).subquery()
    summed = [func.sum(both.c[name]).label(name) for name in names[2:]]
    return select(both.c.slot, both.c.model, *summed).group_by(both.c.slot, both.c.model).order_by(both.c.slot)


def _count(connection: Connection, window: Window, models: Sequence[str], has_succeeded: bool | None) -> int:
    found = [Sum(*row) for row in connection.execute(_sums(window))]
    chosen = [one for one in found if not models or one.model in models]
    succeeded, failed = sum(one.succeeded for one in chosen), sum(one.failed for one in chosen)
    return {True: succeeded, False: failed, None: succeeded + failed}[has_succeeded]
