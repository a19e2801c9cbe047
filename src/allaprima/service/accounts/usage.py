"""What was used, summed as the platform's endpoints show it."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from allaprima.domain.billing import UsageBucket, UsageRange, UsageRecord
from allaprima.store.usage import UsageRepository

Group = TypeVar("Group", bound=Hashable)


@dataclass(slots=True)
class Total:
    """Usage added up."""

    succeeded: int = 0
    failed: int = 0
    #: Requests that were charged.
    charged: int = 0
    credits: int = 0

    def add(self, one: UsageBucket) -> None:
        """Take a quarter of an hour in."""
        self.succeeded += one.succeeded
        self.failed += one.failed
        self.charged += one.charged
        self.credits += one.credits


class Usage:
    """Adds up and lists what accounts used."""

    def __init__(self, book: UsageRepository) -> None:
        self._book = book

    async def sums(self, window: UsageRange) -> list[UsageBucket]:
        """Return a window's usage by quarter of an hour and model, oldest first."""
        return await self._book.sums(window)

    async def logs(
        self, window: UsageRange, models: list[str], has_succeeded: bool | None, offset: int, limit: int
    ) -> tuple[list[UsageRecord], int]:
        """Return some finished requests, newest first, and how many there are."""
        return await self._book.page(window, models, has_succeeded, offset, limit)

    async def spent_this_month(self, account_id: str, now: float) -> dict[str, int]:
        """Return the credits that each of an account's keys was charged in this month of UTC, by key id."""
        return await self._book.spent_this_month(account_id, now)

    async def durations(self, since: float) -> dict[str, list[float]]:
        """Return the seconds of each request that succeeded since then, by model, shortest first."""
        return await self._book.durations(since)


def total(sums: Iterable[UsageBucket]) -> Total:
    """Add everything up."""
    whole = Total()
    for one in sums:
        whole.add(one)
    return whole


def by_model(sums: Iterable[UsageBucket]) -> dict[str, Total]:
    """Add up by model, the dearest first."""
    return _grouped(sums, lambda one: one.model, lambda item: (-item[1].credits, item[0]))


def by_day(sums: Iterable[UsageBucket], zone: ZoneInfo) -> dict[str, Total]:
    """Add up by day of a time zone, oldest first."""
    return _grouped(sums, lambda one: _day(one, zone), lambda item: item[0])


def by_day_and_model(sums: Iterable[UsageBucket], zone: ZoneInfo) -> dict[tuple[str, str], Total]:
    """Add up by day and model, oldest first."""
    return _grouped(sums, lambda one: (_day(one, zone), one.model), lambda item: item[0])


def _day(one: UsageBucket, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(one.slot, zone).date().isoformat()


def _grouped(
    sums: Iterable[UsageBucket], key: Callable[[UsageBucket], Group], order: Callable[[tuple[Group, Total]], Any]
) -> dict[Group, Total]:
    groups: dict[Group, Total] = {}
    for one in sums:
        groups.setdefault(key(one), Total()).add(one)
    return dict(sorted(groups.items(), key=order))
