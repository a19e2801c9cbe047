"""The limit on a key's requests: never more than it says in any minute, and an honest time to come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allaprima.domain.ports import RateStatus
from allaprima.errors import RateLimited
from allaprima.service.accounts.rate_limits import MANY_KEYS, WINDOW_S, MemoryRateLimiter
from fakes import NOON, FakeClock


def passes(rates: MemoryRateLimiter, key: str = "a") -> bool:
    try:
        rates.take(key)
    except RateLimited:
        return False
    return True


def test_without_a_limit_nothing_is_counted() -> None:
    rates = MemoryRateLimiter(FakeClock(), None)
    assert [rates.take("a") for _ in range(1000)] == [None] * 1000


def test_a_rested_key_may_use_its_whole_minute_at_once_and_no_more() -> None:
    rates = MemoryRateLimiter(FakeClock(), 5)
    assert [rates.take("a") for _ in range(5)] == [
        RateStatus(5, remaining, pytest.approx((5 - remaining) * 12)) for remaining in (4, 3, 2, 1, 0)
    ]
    with pytest.raises(RateLimited, match="5 requests a minute") as refused:
        rates.take("a")
    assert refused.value.retry_after_s == pytest.approx(12)
    assert refused.value.limit == 5


def test_each_key_has_its_own() -> None:
    rates = MemoryRateLimiter(FakeClock(), 1)
    assert [passes(rates, key) for key in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_refused_request_is_not_counted() -> None:
    clock = FakeClock()
    rates = MemoryRateLimiter(clock, 2)
    assert [passes(rates) for _ in range(50)] == [True, True] + [False] * 48
    clock.now += WINDOW_S / 2
    assert [passes(rates) for _ in range(2)] == [True, False]


def test_a_clock_set_back_locks_nobody_out_for_longer_than_the_window() -> None:
    clock = FakeClock()
    rates = MemoryRateLimiter(clock, 3)
    rates.take("a")
    clock.now -= 86400
    with pytest.raises(RateLimited) as refused:
        rates.take("a")
    assert refused.value.retry_after_s <= WINDOW_S
    clock.now += refused.value.retry_after_s
    rates.take("a")


def test_keys_at_rest_are_forgotten() -> None:
    clock = FakeClock()
    rates = MemoryRateLimiter(clock, 60)
    for number in range(MANY_KEYS + 5):
        clock.now += 1
        rates.take(str(number))
    assert len(rates._horizons) < 100


@given(limit=st.integers(1, 40), waits=st.lists(st.floats(0, 40), max_size=120))
def test_a_minute_never_holds_more_than_twice_and_retry_after_is_true(limit: int, waits: list[float]) -> None:
    """The minute before a burst pays for it, so the most in any window is the limit and what was saved."""
    clock = FakeClock()
    rates = MemoryRateLimiter(clock, limit)
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
