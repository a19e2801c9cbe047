"""What the engine has in its hands, and when it will have done it."""

import time
from dataclasses import dataclass

from allaprima.request import Timings
from allaprima.service.pace import Mean, Pace
from allaprima.service.ports import Clock
from allaprima.store.rows import Job

#: Of its seconds, what a job that takes longer than was thought is thought to need still.
LEAST_LEFT = 0.05


@dataclass(frozen=True, slots=True)
class _Begun:
    at: float
    #: Jobs that were painted then, this one included.
    abreast: int


class Timetable:
    """The jobs that the engine was given, in its order.

    Where it paints several abreast each takes longer, and costs the others less: seconds of the engine are seconds that
    pass, over how many share them.
    """

    def __init__(self, abreast: int, clock: Clock = time.monotonic) -> None:
        """abreast: how many jobs the engine paints at a time."""
        self._most_abreast = abreast
        #: The measured speed of the engine.
        self.pace = Pace()
        self._clock = clock
        self._given: dict[str, Job] = {}
        self._begun: dict[str, _Begun] = {}
        #: Seconds from the picture to the commit.
        self._storing = Mean()

    def give(self, job: Job) -> None:
        """The engine was given a job."""
        self._given[job.id] = job

    def begin(self, job: Job) -> None:
        """The engine begins with one."""
        self._begun[job.id] = _Begun(self._clock(), min(self._most_abreast, len(self._begun) + 1))

    def end(self, job: Job, timings: Timings | None) -> None:
        """The engine is done with one. timings: what is to be learned from, if anything."""
        abreast = self._abreast()
        begun = self._begun.pop(job.id, None)
        if begun and timings:
            self.pace.observe(job.request, timings, self._clock() - begun.at, (begun.abreast + abreast) / 2)

    def stored(self, seconds: float) -> None:
        """A picture was stored, so long after it was painted."""
        self._storing.add(seconds)

    def take(self, job_id: str) -> bool:
        """The engine has a job no more. Returns whether it had."""
        self._begun.pop(job_id, None)
        return self._given.pop(job_id, None) is not None

    def free_in(self) -> float:
        """Return the seconds until the engine will have done what it was given."""
        return sum(map(self._cost_left, self._given.values()))

    def finish_in(self, job_id: str) -> float:
        """Return the seconds until the engine will have done a job that it was given."""
        seconds = 0.0
        for job in self._given.values():
            if job.id == job_id and job.id in self._begun:
                return self._left(job)
            seconds += self._cost_left(job)
            if job.id == job_id:
                break
        return seconds

    def room_in(self) -> float:
        """Return the seconds until a job will have left the queue."""
        lefts = [self._left(job) for job in self._given.values() if job.id in self._begun]
        if not lefts:
            lefts = [self._cost_left(job) for job in self._given.values()][:1]
        return min(lefts, default=0.0) + self._storing.value

    def _left(self, job: Job) -> float:
        """The seconds that will pass until a job that was begun is done."""
        seconds, begun = self.pace.seconds(job.request), self._begun[job.id]
        return max(LEAST_LEFT * seconds, seconds * self._abreast() - (self._clock() - begun.at))

    def _cost_left(self, job: Job) -> float:
        """The seconds of the engine that a job will still cost."""
        if job.id not in self._begun:
            return self.pace.seconds(job.request)
        return self._left(job) / self._abreast()

    def _abreast(self) -> int:
        """How many jobs are being painted. A job may begin before it is known that the one before it is done."""
        return min(self._most_abreast, len(self._begun))
