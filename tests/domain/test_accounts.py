"""The periods of a spend limit start at 00:00 UTC; a key needs the image scope to generate."""

from datetime import UTC, datetime
from typing import Any

import pytest

from allaprima.domain.accounts import IMAGE_SCOPE, ApiKey, LimitPeriod, period_start
from allaprima.errors import ScopeMissing


@pytest.mark.parametrize(
    ("period", "start"),
    [
        (LimitPeriod.DAY, "2026-02-18T00:00:00"),
        (LimitPeriod.WEEK, "2026-02-16T00:00:00"),
        (LimitPeriod.MONTH, "2026-02-01T00:00:00"),
    ],
)
@pytest.mark.parametrize("now", ["2026-02-18T00:00:00", "2026-02-18T06:59:10", "2026-02-18T23:59:59"])
def test_period_starts_at_its_first_midnight(period: LimitPeriod, start: str, now: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    assert period_start(period, moment) == datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()


def test_period_without_reset_starts_at_zero() -> None:
    assert period_start(LimitPeriod.NO_RESET, 1_800_000_000.0) == 0


def test_monday_the_first_starts_week_and_month() -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    assert period_start(LimitPeriod.WEEK, monday) == period_start(LimitPeriod.MONTH, monday) == monday


@pytest.mark.parametrize("scopes", [None, (IMAGE_SCOPE,), ("other", IMAGE_SCOPE)])
def test_ordinary_key_with_image_scope_may_generate(scopes: tuple[str, ...] | None) -> None:
    ApiKey(id="key", account_id="account", prefix="abcd1234", created_at=0.0, scopes=scopes).require_image_scope()


@pytest.mark.parametrize("fields", [{"scopes": ()}, {"scopes": ("other",)}, {"is_management": True}])
def test_key_without_image_scope_may_not_generate(fields: dict[str, Any]) -> None:
    with pytest.raises(ScopeMissing, match=IMAGE_SCOPE):
        ApiKey(id="key", account_id="account", prefix="abcd1234", created_at=0.0, **fields).require_image_scope()
