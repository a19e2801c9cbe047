"""When a refused client may come back: a place in a line, so that those who keep to their time find room.

Room opens once a job. If all who are refused were told the time of the next opening, one of them would get in and the
rest be refused again, so each is promised an opening of its own; and whoever comes without a promise waits behind all
who have one, even when there is room just now: it is theirs.
"""

from bisect import insort

#: Seconds by which a client may come before the time that it was told.
EARLY_S = 0.05
#: Seconds after its time for which a promise is kept: that client does not come back.
PATIENCE_S = 2.0
#: Never more promises than this.
MANY = 10_000


class Turnstile:
    """The openings that are promised."""

    def __init__(self) -> None:
        #: When, unix seconds, soonest first.
        self._promises: list[float] = []

    def keep(self, now: float) -> bool:
        """Say whether a client was told to come now, and count it as having come."""
        while self._promises and self._promises[0] < now - PATIENCE_S:
            self._promises.pop(0)
        is_due = bool(self._promises) and self._promises[0] <= now + EARLY_S
        if is_due:
            self._promises.pop(0)
        return is_due

    @property
    def promised(self) -> int:
        """How many openings belong to those who were told to come back."""
        return len(self._promises)

    def refuse(self, now: float, room: int, room_in_s: float, job_s: float, *, was_told: bool) -> float:
        """Return the seconds after which a client will find room.

        room: how many could come in now; room_in_s: seconds until the next opening, job_s: from each to the one after.
        was_told: whether it came as it was told, and found none: then the next opening is its own.
        """
        places = 0 if was_told else max(0, len(self._promises) - room)
        wait_s = room_in_s + places * job_s
        if len(self._promises) < MANY:
            insort(self._promises, now + wait_s)
        return wait_s
