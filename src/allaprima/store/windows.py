"""The windows of a spend limit. They begin at 00:00 UTC, a week's on Monday, a month's on the first."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Retention(StrEnum):
    """For how long a limit is; the platform's names."""

    NO_RESET = "no_reset"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def window_start(retention: Retention, now: float) -> float:
    """Return when the window that holds `now` began, unix seconds; 0 for the one that never ends."""
    if retention == Retention.NO_RESET:
        return 0.0
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if retention == Retention.WEEK:
        midnight -= timedelta(days=midnight.weekday())
    if retention == Retention.MONTH:
        midnight = midnight.replace(day=1)
    return midnight.timestamp()
