"""What the engine has in its hands, and when it will have done it."""

import time

from allaprima.domain.generation import Timings
from allaprima.domain.jobs import Job
from allaprima.domain.ports import Clock
from allaprima.service.jobs.pace import Mean, Pace

#: Of its seconds, what a job that takes longer than was thought is thought to need still.
LEAST_LEFT = 0.05


class Timetable:
    """The jobs that the engine was given, in its order.

    Where it paints several abreast each takes longer, and costs the others less: seconds of the engine are seconds that
    pass, over how many share them.
    """

    def __init__(self, abreast: int, clock: Clock = time.monotonic) -> None:
        """abreast: how many jobs the engine paints at a time."""
        #: The measured speed of the engine.
        self.pace = Pace()
        self._most_abreast = abreast
        self._clock = clock
        self._given: dict[str, Job] = {}
        #: Of the jobs that were begun and are not painted yet: when, and their seconds of the engine until `_seen_at`.
        self._began_at: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._seen_at = clock()
        self._painted: set[str] = set()
        #: Seconds from the picture to the commit.
        self._storing = Mean()

    def give(self, job: Job) -> None:
        """The engine was given a job."""
        self._given[job.id] = job

    def begin(self, job: Job) -> None:
        """The engine begins with one."""
        self._pass()
        self._began_at[job.id] = self._seen_at
        self._spent[job.id] = 0.0

    def end(self, job: Job, timings: Timings | None) -> None:
        """The engine is done with one. timings: what is to be learned from, if anything."""
        self._pass()
        self._painted.add(job.id)
        began_at, spent = self._began_at.pop(job.id, None), self._spent.pop(job.id, 0.0)
        if began_at is not None and timings and spent > 0:
            passed = self._seen_at - began_at
            self.pace.observe(job.request, timings, passed, passed / spent)

    def stored(self, seconds: float) -> None:
        """A picture was stored, so long after it was painted."""
        self._storing.add(seconds)

    def take(self, job_id: str) -> bool:
        """The engine has a job no more. Returns whether it had."""
        self._pass()
        self._painted.discard(job_id)
        self._began_at.pop(job_id, None)
        self._spent.pop(job_id, None)
        return self._given.pop(job_id, None) is not None

    def start_in(self, waiting: int, waiting_s: float) -> float:
        """Return the seconds until the engine will begin with a job that it does not have.

        waiting, waiting_s: the jobs that it is given before, and their seconds of the engine.
        """
        before = waiting + len(self._given) - len(self._painted)
        if before < self._most_abreast:
            return 0.0
        # As it begins, all places but one are at work, each half done in the mean.
        seconds = self._free_in() + waiting_s
        return max(0.0, seconds - (self._most_abreast - 1) / 2 * seconds / before)

    def finish_in(self, job_id: str) -> float:
        """Return the seconds until the engine will have done a job that it was given."""
        seconds = 0.0
        for job in self._given.values():
            if job.id == job_id and job.id in self._spent:
                return self._left(job) * self._abreast()
            seconds += self._left(job)
            if job.id == job_id:
                break
        return seconds

    def room_in(self) -> float:
        """Return the seconds until a job will have left the queue."""
        lefts = [self._left(job) * self._abreast() for job in self._given.values() if job.id in self._spent]
        if not lefts:
            lefts = [self._left(job) for job in self._given.values()][:1]
        return min(lefts, default=0.0) + self._storing.value

    def _free_in(self) -> float:
        """The seconds until the engine will have done what it was given."""
        return sum(map(self._left, self._given.values()))

    def _left(self, job: Job) -> float:
        """The seconds of the engine that a job will still cost."""
        if job.id in self._painted:
            return 0.0
        seconds = self.pace.seconds(job.request)
        if job.id not in self._spent:
            return seconds
        spent = self._spent[job.id] + (self._clock() - self._seen_at) / self._abreast()
        return max(LEAST_LEFT * seconds, seconds - spent)

    def _pass(self) -> None:
        """Share the time since the last change among the jobs that were painted in it."""
        now = self._clock()
        for job_id in self._spent:
            self._spent[job_id] += (now - self._seen_at) / self._abreast()
        self._seen_at = now

    def _abreast(self) -> int:
        """How many jobs are being painted. A job may begin before it is known that the one before it is done."""
        return max(1, min(self._most_abreast, len(self._spent)))
