"""When a refused client may come back: a time of its own for each, so that those who keep to it find room.

Room opens once a job. If all who are refused were told the time of the next opening, one of them would get in and the
rest be refused again, so each is promised the opening after the last one that was promised.
"""

from bisect import insort

#: Promises are forgotten when they are overdue by this many jobs: that client does not come back.
PATIENCE_JOBS = 3
#: Seconds by which a client may come before the time that it was told.
EARLY_S = 0.02
#: Never more promises than this.
MANY = 10_000


class Turnstile:
    """The openings that are promised."""

    def __init__(self) -> None:
        #: When, unix seconds, soonest first.
        self._promises: list[float] = []

    @property
    def has_promised(self) -> bool:
        """Whether anybody was told a time that is not over."""
        return bool(self._promises)

    def refuse(self, now: float, room_in_s: float, job_s: float) -> float:
        """Return the seconds after which a client will find room.

        room_in_s: until the next opening. job_s: from one opening to the next.
        """
        self._forget(now, job_s)
        if self._promises and self._promises[0] <= now + EARLY_S:
            # Somebody came as told and we were wrong by a little: the next opening is theirs.
            self._promises.pop(0)
            at = now + room_in_s
        else:
            at = max(now + room_in_s, self._promises[-1] + job_s if self._promises else now)
        if len(self._promises) < MANY:
            insort(self._promises, at)
        return at - now

    def admit(self, now: float, job_s: float) -> None:
        """Let one in: if an opening was promised for about now, it is kept."""
        self._forget(now, job_s)
        if self._promises and self._promises[0] <= now + EARLY_S:
            self._promises.pop(0)

    def _forget(self, now: float, job_s: float) -> None:
        while self._promises and self._promises[0] < now - PATIENCE_JOBS * job_s - 1:
            self._promises.pop(0)
