"""The windows of a limit begin at 00:00 UTC."""

from datetime import UTC, datetime

import pytest

from allaprima.store.windows import Retention, window_start


@pytest.mark.parametrize(
    ("retention", "start"),
    [
        (Retention.DAY, "2026-02-18T00:00:00"),
        (Retention.WEEK, "2026-02-16T00:00:00"),
        (Retention.MONTH, "2026-02-01T00:00:00"),
    ],
)
@pytest.mark.parametrize("now", ["2026-02-18T00:00:00", "2026-02-18T06:59:10", "2026-02-18T23:59:59"])
def test_a_window_began_at_its_last_midnight(retention: Retention, start: str, now: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    assert window_start(retention, moment) == datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()


def test_what_never_resets_began_before_everything() -> None:
    assert window_start(Retention.NO_RESET, 1_800_000_000.0) == 0


def test_a_monday_and_a_first_are_in_their_own_windows() -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    assert window_start(Retention.WEEK, monday) == window_start(Retention.MONTH, monday) == monday
