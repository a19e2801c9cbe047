"""How many requests a key may make in a minute.

A generic cell rate algorithm: each request moves a key's horizon on by its share of the minute; a request whose horizon
would lie more than a minute ahead is refused, and the time until it would not is known exactly. A key that rests gets
the whole minute's requests back, so a burst is as large as the limit. Source: ITU-T I.371, annex A.

State is in memory: a restart forgives, which errs on the caller's side.
"""

import math
from dataclasses import dataclass

from allaprima.domain.ports import Clock
from allaprima.errors import RateLimited

WINDOW_S = 60.0
#: Keys remembered before those at rest are forgotten.
MANY_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a key stands."""

    #: Requests a minute.
    limit: int
    #: Requests that may be made at once.
    remaining: int
    #: Seconds until all of the limit may be.
    reset_s: float


class Rates:
    """Counts the requests of every key."""

    def __init__(self, clock: Clock, per_minute: int | None) -> None:
        """per_minute: None counts nothing."""
        self._clock = clock
        self._limit = per_minute
        #: When a key's requests so far will be paid off, unix seconds.
        self._horizons: dict[str, float] = {}

    def take(self, key_id: str, per_minute: int | None = None) -> Rate | None:
        """Count one request; return where the key stands after it, or None where nothing is counted.

        per_minute: the key's own limit; the stricter of it and everybody's counts. Raises `RateLimited` with the
        seconds after which it would pass; a refused request is not counted.
        """
        limit = min((one for one in (per_minute, self._limit) if one is not None), default=None)
        if limit is None:
            return None
        now = self._clock()
        share_s = WINDOW_S / limit
        # A clock that was set back must not lock a key out for longer than the window.
        before = self._horizons[key_id] = min(max(now, self._horizons.get(key_id, now)), now + WINDOW_S)
        ahead_s = before - now + share_s
        if ahead_s > WINDOW_S * (1 + 1e-9):
            raise RateLimited(limit, retry_after_s=ahead_s - WINDOW_S)
        if len(self._horizons) >= MANY_KEYS:
            self._horizons = {key: end for key, end in self._horizons.items() if end > now}
        self._horizons[key_id] = now + ahead_s
        return Rate(limit, math.floor((WINDOW_S - ahead_s) / share_s + 1e-6), ahead_s)
