"""Totals of usage by model and by day, for the usage endpoints."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from allaprima.domain.usage import UsageBucket

Group = TypeVar("Group", bound=Hashable)


@dataclass(slots=True)
class Total:
    """The sum of usage buckets."""

    succeeded: int = 0
    failed: int = 0
    #: Requests that were charged.
    charged: int = 0
    credits: int = 0

    def add(self, one: UsageBucket) -> None:
        """Add a bucket."""
        self.succeeded += one.succeeded
        self.failed += one.failed
        self.charged += one.charged
        self.credits += one.credits


def total(sums: Iterable[UsageBucket]) -> Total:
    """Return the sum of all buckets."""
    whole = Total()
    for one in sums:
        whole.add(one)
    return whole


def by_model(sums: Iterable[UsageBucket]) -> dict[str, Total]:
    """Return the sums by model, the most expensive model first."""
    return _grouped(sums, lambda one: one.model, lambda item: (-item[1].credits, item[0]))


def by_day(sums: Iterable[UsageBucket], zone: ZoneInfo) -> dict[str, Total]:
    """Return the sums by day of a time zone, oldest first."""
    return _grouped(sums, lambda one: _day(one, zone), lambda item: item[0])


def by_day_and_model(sums: Iterable[UsageBucket], zone: ZoneInfo) -> dict[tuple[str, str], Total]:
    """Return the sums by day of a time zone and model, oldest first."""
    return _grouped(sums, lambda one: (_day(one, zone), one.model), lambda item: item[0])


def _day(one: UsageBucket, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(one.start, zone).date().isoformat()


def _grouped(
    sums: Iterable[UsageBucket], key: Callable[[UsageBucket], Group], order: Callable[[tuple[Group, Total]], Any]
) -> dict[Group, Total]:
    groups: dict[Group, Total] = {}
    for one in sums:
        groups.setdefault(key(one), Total()).add(one)
    return dict(sorted(groups.items(), key=order))
