"""A clock that a test sets."""

from allaprima.domain.clock import Clock

#: 15 January 2026, 08:00 UTC, unix seconds.
NOW = 1_768_464_000.0


class FakeClock(Clock):
    """A clock that advances only when a test sets `now`."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
