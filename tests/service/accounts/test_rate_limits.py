"""The rate limit of a key: its bound in any minute, and an exact Retry-After."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allaprima.domain.ports import RateLimiter, RateStatus
from allaprima.errors import RateLimited
from allaprima.metrics import Metrics
from allaprima.service.accounts.rate_limits import MAX_KEYS, WINDOW_S, MemoryRateLimiter
from tests.fakes import NOW, FakeClock, FakeEngine, open_service


def limiter(clock: FakeClock, per_minute: int | None) -> MemoryRateLimiter:
    return MemoryRateLimiter(clock, per_minute, Metrics())


def passes(rates: RateLimiter, key: str = "a") -> bool:
    try:
        rates.take(key)
    except RateLimited:
        return False
    return True


def test_requests_without_limit_are_not_counted() -> None:
    rates = limiter(FakeClock(), None)
    assert [rates.take("a") for _ in range(1000)] == [None] * 1000


def test_idle_key_may_use_whole_limit_at_once() -> None:
    rates = limiter(FakeClock(), 5)
    assert [rates.take("a") for _ in range(5)] == [
        RateStatus(5, remaining, pytest.approx((5 - remaining) * 12)) for remaining in (4, 3, 2, 1, 0)
    ]
    with pytest.raises(RateLimited, match="5 requests per minute") as refused:
        rates.take("a")
    assert refused.value.retry_after_s == pytest.approx(12)
    assert refused.value.limit == 5


def test_each_key_has_its_own_limit() -> None:
    rates = limiter(FakeClock(), 1)
    assert [passes(rates, key) for key in ("a", "b", "a", "b")] == [True, True, False, False]


def test_refused_request_is_not_counted() -> None:
    clock = FakeClock()
    rates = limiter(clock, 2)
    assert [passes(rates) for _ in range(50)] == [True, True] + [False] * 48
    clock.now += WINDOW_S / 2
    assert [passes(rates) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("change_s", [-3600, 3600, -400 * 86_400, 400 * 86_400])
async def test_change_of_system_clock_changes_no_limit(tmp_path: Path, change_s: float) -> None:
    clock, monotonic = FakeClock(), FakeClock()
    limits = {"requests_per_minute": 2}
    async with open_service(tmp_path, FakeEngine(), clock, monotonic=monotonic, server=limits) as service:
        assert [passes(service.rates) for _ in range(3)] == [True, True, False]
        clock.now += change_s
        assert not passes(service.rates)
        monotonic.now += 30
        assert [passes(service.rates) for _ in range(2)] == [True, False]


def test_idle_key_regains_whole_limit() -> None:
    clock = FakeClock()
    rates = limiter(clock, 60)
    for number in range(MAX_KEYS + 5):
        clock.now += 1
        assert rates.take(str(number)) == RateStatus(60, 59, pytest.approx(1))
    assert rates.take("0") == RateStatus(60, 59, pytest.approx(1))


def test_stricter_limit_of_key_and_server_applies() -> None:
    rates = limiter(FakeClock(), 5)
    assert [rates.take(name, own).limit for name, own in (("a", 3), ("b", 9), ("c", None))] == [3, 5, 5]


def test_refused_requests_are_counted_in_metrics() -> None:
    metrics = Metrics()
    rates = MemoryRateLimiter(FakeClock(), 1, metrics)
    assert [passes(rates) for _ in range(3)] == [True, False, False]
    assert b'allaprima_refusals_total{reason="rate_limit_exceeded"} 2.0' in metrics.text(0)


@given(limit=st.integers(1, 40), waits=st.lists(st.floats(0, 40), max_size=120))
def test_limit_holds_and_retry_after_is_exact(limit: int, waits: list[float]) -> None:
    """A burst may use tokens saved in the minute before, so any window has at most twice the limit."""
    clock = FakeClock()
    rates = limiter(clock, limit)
    passed: list[float] = []
    for wait in waits:
        clock.now += wait
        try:
            rates.take("a")
        except RateLimited as refused:
            after = refused.retry_after_s
            assert 0 < after <= WINDOW_S / limit + 1e-6
            clock.now += after + 1e-3
            rates.take("a")
        passed.append(clock.now)
    for start in passed:
        within = sum(start <= moment < start + WINDOW_S for moment in passed)
        assert within <= 2 * limit
    assert clock.now >= NOW
