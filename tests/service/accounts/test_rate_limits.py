"""The rate limit of a key: its bound in any minute, and a Retry-After that is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allaprima.domain.ports import RateStatus
from allaprima.errors import RateLimited
from allaprima.metrics import Metrics
from allaprima.service.accounts.rate_limits import MAX_KEYS, WINDOW_S, MemoryRateLimiter
from fakes import NOON, FakeClock


def limiter(clock: FakeClock, per_minute: int | None) -> MemoryRateLimiter:
    return MemoryRateLimiter(clock, per_minute, Metrics())


def passes(rates: MemoryRateLimiter, key: str = "a") -> bool:
    try:
        rates.take(key)
    except RateLimited:
        return False
    return True


def test_without_a_limit_nothing_is_counted() -> None:
    rates = limiter(FakeClock(), None)
    assert [rates.take("a") for _ in range(1000)] == [None] * 1000


def test_an_idle_key_may_use_the_requests_of_a_whole_minute_at_once() -> None:
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


def test_a_refused_request_is_not_counted() -> None:
    clock = FakeClock()
    rates = limiter(clock, 2)
    assert [passes(rates) for _ in range(50)] == [True, True] + [False] * 48
    clock.now += WINDOW_S / 2
    assert [passes(rates) for _ in range(2)] == [True, False]


def test_a_clock_that_is_set_back_locks_no_key_out_for_longer_than_the_window() -> None:
    clock = FakeClock()
    rates = limiter(clock, 3)
    rates.take("a")
    clock.now -= 86400
    with pytest.raises(RateLimited) as refused:
        rates.take("a")
    assert refused.value.retry_after_s <= WINDOW_S
    clock.now += refused.value.retry_after_s
    rates.take("a")


def test_idle_keys_have_their_whole_limit_again_after_many_others() -> None:
    clock = FakeClock()
    rates = limiter(clock, 60)
    for number in range(MAX_KEYS + 5):
        clock.now += 1
        assert rates.take(str(number)) == RateStatus(60, 59, pytest.approx(1))
    assert rates.take("0") == RateStatus(60, 59, pytest.approx(1))


def test_the_stricter_of_the_limits_of_key_and_server_counts() -> None:
    rates = limiter(FakeClock(), 5)
    assert [rates.take(name, own).limit for name, own in (("a", 3), ("b", 9), ("c", None))] == [3, 5, 5]


def test_refused_requests_are_counted_in_the_metrics() -> None:
    metrics = Metrics()
    rates = MemoryRateLimiter(FakeClock(), 1, metrics)
    assert [passes(rates) for _ in range(3)] == [True, False, False]
    assert b'allaprima_refusals_total{reason="rate_limit_exceeded"} 2.0' in metrics.text(0)


@given(limit=st.integers(1, 40), waits=st.lists(st.floats(0, 40), max_size=120))
def test_no_minute_has_more_than_twice_the_limit_and_retry_after_is_exact(limit: int, waits: list[float]) -> None:
    """A burst uses what was saved in the minute before, so the bound in any window is twice the limit."""
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
    assert clock.now >= NOON
