"""Estimates start and finish times of jobs from what the engine holds and its measured throughput.

With N concurrent jobs each receives 1/N of the engine's throughput (processor sharing).
"""

import time

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job
from allaprima.domain.ports import Clock
from allaprima.service.jobs.throughput import Mean, Throughput

#: Least share of its estimate that a job which takes longer than estimated is expected to need still.
LEAST_LEFT = 0.05


class Eta:
    """The jobs that the engine holds, in its order. Times are seconds from now."""

    def __init__(self, max_concurrency: int, clock: Clock = time.monotonic) -> None:
        """max_concurrency: most jobs that the engine generates at a time."""
        self._throughput = Throughput()
        self._running = _SharedTime(max_concurrency, clock)
        self._max_concurrency = max_concurrency
        self._held: dict[str, Job] = {}
        self._generated: set[str] = set()
        #: Seconds from the images to the commit.
        self._store_s = Mean()

    def seconds(self, request: GenerationRequest) -> float:
        """Return the estimated compute seconds of a request."""
        return self._throughput.seconds(request)

    def submitted(self, job: Job) -> None:
        """The engine received a job."""
        self._held[job.id] = job

    def started(self, job: Job) -> None:
        """The engine started with a job."""
        # The engine's thread may report the start of a job that was cancelled and released meanwhile.
        if job.id in self._held:
            self._running.start(job.id)

    def generated(self, job: Job, timings: Timings | None) -> None:
        """The engine finished a job. timings: None where they must not be learned from."""
        self._generated.add(job.id)
        passed_s, compute_s = self._running.stop(job.id)
        if timings and compute_s > 0:
            self._throughput.observe(job.request, timings, passed_s, passed_s / compute_s)

    def stored(self, seconds: float) -> None:
        """A result was stored. seconds: since the engine finished it."""
        self._store_s.add(seconds)

    def released(self, job_id: str) -> None:
        """The engine no longer holds a job."""
        self._held.pop(job_id, None)
        self._generated.discard(job_id)
        self._running.stop(job_id)

    def start_in(self, waiting: int, waiting_s: float) -> float:
        """Return the seconds until the engine starts with a job that it does not hold yet.

        waiting, waiting_s: the jobs before it in the queue, and their estimated seconds.
        """
        before = waiting + len(self._held) - len(self._generated)
        if before < self._max_concurrency:
            return 0.0
        # When it starts, all slots but one are busy, each halfway through its job on average.
        seconds = sum(map(self._left, self._held.values())) + waiting_s
        return max(0.0, seconds - (self._max_concurrency - 1) / 2 * seconds / before)

    def finish_in(self, job_id: str) -> float:
        """Return the seconds until the engine finishes a job that it holds."""
        seconds = 0.0
        for job in self._held.values():
            if job.id == job_id and job_id in self._running:
                return self._left(job) * self._running.concurrency
            seconds += self._left(job)
            if job.id == job_id:
                break
        return seconds

    def room_in(self) -> float:
        """Return the seconds until the next job leaves the queue."""
        left = [self._left(job) * self._running.concurrency for job in self._held.values() if job.id in self._running]
        if not left:
            left = [self._left(job) for job in self._held.values()][:1]
        return min(left, default=0.0) + self._store_s.value

    def _left(self, job: Job) -> float:
        """Return the compute seconds that a job still needs."""
        if job.id in self._generated:
            return 0.0
        seconds = self._throughput.seconds(job.request)
        if job.id not in self._running:
            return seconds
        return max(LEAST_LEFT * seconds, seconds - self._running.spent(job.id))


class _SharedTime:
    """Divides time among the jobs that run in it."""

    def __init__(self, max_concurrency: int, clock: Clock) -> None:
        self._max_concurrency = max_concurrency
        self._clock = clock
        self._seen_at = clock()
        self._started_at: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._spent

    @property
    def concurrency(self) -> int:
        """Number of jobs that run. A job may start before the end of the previous one is known."""
        return max(1, min(self._max_concurrency, len(self._spent)))

    def start(self, job_id: str) -> None:
        self._advance()
        self._started_at[job_id] = self._seen_at
        self._spent[job_id] = 0.0

    def stop(self, job_id: str) -> tuple[float, float]:
        """Return the seconds since a job's start, and its share of them."""
        self._advance()
        return self._seen_at - self._started_at.pop(job_id, self._seen_at), self._spent.pop(job_id, 0.0)

    def spent(self, job_id: str) -> float:
        """Return a running job's share of the time so far."""
        return self._spent[job_id] + (self._clock() - self._seen_at) / self.concurrency

    def _advance(self) -> None:
        now = self._clock()
        for job_id in self._spent:
            self._spent[job_id] += (now - self._seen_at) / self.concurrency
        self._seen_at = now
