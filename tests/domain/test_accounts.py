"""The windows of a limit begin at 00:00 UTC."""

from datetime import UTC, datetime

import pytest

from allaprima.domain.accounts import LimitPeriod, period_start


@pytest.mark.parametrize(
    ("retention", "start"),
    [
        (LimitPeriod.DAY, "2026-02-18T00:00:00"),
        (LimitPeriod.WEEK, "2026-02-16T00:00:00"),
        (LimitPeriod.MONTH, "2026-02-01T00:00:00"),
    ],
)
@pytest.mark.parametrize("now", ["2026-02-18T00:00:00", "2026-02-18T06:59:10", "2026-02-18T23:59:59"])
def test_a_window_began_at_its_last_midnight(retention: LimitPeriod, start: str, now: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    assert period_start(retention, moment) == datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()


def test_what_never_resets_began_before_everything() -> None:
    assert period_start(LimitPeriod.NO_RESET, 1_800_000_000.0) == 0


def test_a_monday_and_a_first_are_in_their_own_windows() -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    assert period_start(LimitPeriod.WEEK, monday) == period_start(LimitPeriod.MONTH, monday) == monday
