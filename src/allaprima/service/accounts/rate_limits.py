"""Rate limits in the memory of one process.

A generic cell rate algorithm: each request moves a key's horizon on by its share of the minute; a request whose horizon
would lie more than a minute ahead is refused, and the time until it would pass is known exactly. An idle key gets the
whole minute's requests back, so a burst is as large as the limit. A restart resets all limits. Source: ITU-T I.371,
annex A.
"""

import math

from allaprima.domain.ports import Clock, RateLimiter, RateStatus
from allaprima.errors import RateLimited
from allaprima.metrics import Metrics

WINDOW_S = 60.0
#: Keys that are tracked before idle ones are dropped.
MAX_KEYS = 10_000


class MemoryRateLimiter(RateLimiter):
    """Counts the requests of every key."""

    def __init__(self, clock: Clock, per_minute: int | None, metrics: Metrics) -> None:
        """per_minute: the server's limit for every key; None: no limit."""
        self._clock = clock
        self._limit = per_minute
        self._metrics = metrics
        #: The time at which a key's requests so far are used up, unix seconds.
        self._horizons: dict[str, float] = {}

    def take(self, key_id: str, per_minute: int | None = None) -> RateStatus | None:
        """See `RateLimiter`."""
        limit = min((one for one in (per_minute, self._limit) if one is not None), default=None)
        if limit is None:
            return None
        now = self._clock()
        share_s = WINDOW_S / limit
        # A clock that was set back must not lock a key out for longer than the window.
        before = self._horizons[key_id] = min(max(now, self._horizons.get(key_id, now)), now + WINDOW_S)
        ahead_s = before - now + share_s
        if ahead_s > WINDOW_S * (1 + 1e-9):
            self._metrics.refused(RateLimited.code)
            raise RateLimited(limit, retry_after_s=ahead_s - WINDOW_S)
        if len(self._horizons) >= MAX_KEYS:
            self._horizons = {key: end for key, end in self._horizons.items() if end > now}
        self._horizons[key_id] = now + ahead_s
        return RateStatus(limit, math.floor((WINDOW_S - ahead_s) / share_s + 1e-6), ahead_s)
