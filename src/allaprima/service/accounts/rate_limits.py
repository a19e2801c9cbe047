"""Rate limits in the memory of one process, by the generic cell rate algorithm. Source: ITU-T I.371, annex A.

Each request advances its key's horizon by 60 s / limit. A request that would advance the horizon more than 60 s beyond
the current time is refused; the excess is the exact time until a retry passes. An idle key can use its whole limit in
one burst. A restart of the server resets all limits.
"""

import math

from allaprima.domain.clock import Clock
from allaprima.domain.ports import RateLimiter, RateStatus
from allaprima.errors import RateLimited
from allaprima.metrics import Metrics

WINDOW_S = 60.0
#: Number of tracked keys at which idle keys are removed.
MAX_KEYS = 10_000


class MemoryRateLimiter(RateLimiter):
    """Limits the requests of each key."""

    def __init__(self, monotonic: Clock, per_minute: int | None, metrics: Metrics) -> None:
        """per_minute: the server's limit for every key; None: no limit."""
        self._clock = monotonic
        self._limit = per_minute
        self._metrics = metrics
        #: The horizon of each key, in seconds of the monotonic clock.
        self._horizons: dict[str, float] = {}

    def take(self, key_id: str, per_minute: int | None = None) -> RateStatus | None:
        """See `RateLimiter`."""
        limit = min((one for one in (per_minute, self._limit) if one is not None), default=None)
        if limit is None:
            return None
        now = self._clock()
        share_s = WINDOW_S / limit
        before = self._horizons[key_id] = max(now, self._horizons.get(key_id, now))
        ahead_s = before - now + share_s
        if ahead_s > WINDOW_S * (1 + 1e-9):
            self._metrics.refused(RateLimited.code)
            raise RateLimited(limit, retry_after_s=ahead_s - WINDOW_S)
        if len(self._horizons) >= MAX_KEYS:
            self._horizons = {key: end for key, end in self._horizons.items() if end > now}
        self._horizons[key_id] = now + ahead_s
        return RateStatus(limit, math.floor((WINDOW_S - ahead_s) / share_s + 1e-6), ahead_s)
