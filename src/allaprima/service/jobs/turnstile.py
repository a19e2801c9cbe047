"""When a refused client may come back: a place in a line, so that those who keep to their time find room.

Room opens once a job. If all who are refused were told the time of the next opening, one of them would get in and the
rest be refused again, so each is promised an opening of its own; and whoever comes without a promise waits behind all
who have one, even when there is room just now: it is theirs, who are to come soon. Who comes is told by what it asks:
a retry is the same request under the same key.
"""

from bisect import bisect_right, insort
from operator import itemgetter

#: Seconds by which a client may come before the time that it was told.
EARLY_S = 0.05
#: Seconds after its time for which a promise is kept: that client does not come back.
PATIENCE_S = 2.0
#: Never more promises than this.
MANY = 10_000


class Turnstile:
    """The openings that are promised."""

    def __init__(self) -> None:
        #: When, unix seconds, and who; soonest first.
        self._promises: list[tuple[float, int]] = []

    def keep(self, now: float, who: int) -> bool:
        """Say whether a client was told to come now, and count it as having come. who: a hash of what it asks."""
        while self._promises and self._promises[0][0] < now - PATIENCE_S:
            self._promises.pop(0)
        for place in range(self._due_by(now + EARLY_S)):
            if self._promises[place][1] == who:
                del self._promises[place]
                return True
        return False

    @property
    def promised(self) -> int:
        """How many openings belong to those who were told to come back."""
        return len(self._promises)

    def due(self, now: float, job_s: float) -> int:
        """How many of those are to come so soon that room which is there now is theirs. job_s: a job's seconds."""
        return self._due_by(now + max(PATIENCE_S, job_s))

    def refuse(self, now: float, who: int, room: int, room_in_s: float, job_s: float, *, was_told: bool) -> float:
        """Return the seconds after which a client will find room.

        room: how many could come in now; room_in_s: seconds until the next opening, job_s: from each to the one after.
        was_told: whether it came as it was told, and found none: then the next opening that nobody was promised is its
        own; all others wait behind everybody.
        """
        places = self._next_free(now + room_in_s, job_s) if was_told else max(0, len(self._promises) - room)
        wait_s = room_in_s + places * job_s
        if len(self._promises) < MANY:
            insort(self._promises, (now + wait_s, who))
        return wait_s

    def _next_free(self, opening: float, job_s: float) -> int:
        """How many openings from that one on are promised without a gap."""
        places = 0
        while True:
            around = opening + (places - 0.5) * job_s
            if self._due_by(around + job_s) == self._due_by(around):
                return places
            places += 1

    def _due_by(self, at: float) -> int:
        """How many are promised an opening by then."""
        return bisect_right(self._promises, at, key=itemgetter(0))
