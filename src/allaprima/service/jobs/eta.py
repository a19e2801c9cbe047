"""Estimates start and finish times of jobs from the engine's current jobs and its measured throughput.

With N concurrent jobs each receives 1/N of the engine's throughput (processor sharing).
"""

import time

from allaprima.domain.clock import Clock
from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job
from allaprima.service.jobs.throughput import Mean, Throughput

#: Smallest remaining share of a job's estimate, for jobs that take longer than estimated.
MIN_REMAINING = 0.05


class Eta:
    """Tracks the engine's jobs in their order and estimates their times, in seconds from now."""

    def __init__(self, max_concurrency: int, clock: Clock = time.monotonic) -> None:
        """max_concurrency: largest number of jobs that the engine runs concurrently."""
        self._throughput = Throughput()
        self._running = _SharedTime(max_concurrency, clock)
        self._max_concurrency = max_concurrency
        self._held: dict[str, Job] = {}
        self._generated: set[str] = set()
        #: Seconds from the end of generation to the commit.
        self._store_s = Mean()

    def seconds(self, request: GenerationRequest) -> float:
        """Return the estimated compute seconds of a request."""
        return self._throughput.seconds(request)

    def submitted(self, job: Job) -> None:
        """Record that the engine received a job."""
        self._held[job.id] = job

    def started(self, job: Job) -> None:
        """Record that the engine started a job."""
        # The engine's thread may report the start of a job after its cancellation and release.
        if job.id in self._held:
            self._running.start(job.id)

    def generated(self, job: Job, timings: Timings | None) -> None:
        """Record that the engine finished a job. timings: its measured phases; None: not used for further estimates."""
        self._generated.add(job.id)
        passed_s, compute_s = self._running.stop(job.id)
        if timings and compute_s > 0:
            self._throughput.observe(job.request, timings, passed_s, passed_s / compute_s)

    def spent(self, job_id: str) -> float:
        """Return the compute seconds of a running job so far; 0 for any other job."""
        return self._running.spent(job_id) if job_id in self._running else 0.0

    def stored(self, seconds: float) -> None:
        """Record that a result was stored. seconds: since the engine finished it."""
        self._store_s.add(seconds)

    def released(self, job_id: str) -> None:
        """Record that the engine no longer has a job."""
        self._held.pop(job_id, None)
        self._generated.discard(job_id)
        self._running.stop(job_id)

    def start_in(self, waiting: int, waiting_s: float) -> float:
        """Return the seconds until the engine starts a queued job.

        waiting, waiting_s: number of jobs ahead of it in the queue, and their estimated seconds.
        """
        before = waiting + len(self._held) - len(self._generated)
        if before < self._max_concurrency:
            return 0.0
        # When the job starts, all other slots are busy and on average halfway through their jobs.
        seconds = sum(map(self._remaining, self._held.values())) + waiting_s
        return max(0.0, seconds - (self._max_concurrency - 1) / 2 * seconds / before)

    def finish_in(self, job_id: str) -> float | None:
        """Return the seconds until the engine finishes a job; None for a job that it does not have."""
        seconds = 0.0
        for job in self._held.values():
            if job.id == job_id and job_id in self._running:
                return self._remaining(job) * self._running.concurrency
            seconds += self._remaining(job)
            if job.id == job_id:
                return seconds
        return None

    def next_slot_in(self) -> float:
        """Return the seconds until the next job leaves the queue."""
        running = [job for job in self._held.values() if job.id in self._running]
        remaining = [self._remaining(job) * self._running.concurrency for job in running]
        if not remaining:
            remaining = [self._remaining(job) for job in self._held.values()][:1]
        return min(remaining, default=0.0) + self._store_s.value

    def _remaining(self, job: Job) -> float:
        """Return the remaining compute seconds of a job."""
        if job.id in self._generated:
            return 0.0
        seconds = self._throughput.seconds(job.request)
        if job.id not in self._running:
            return seconds
        return max(MIN_REMAINING * seconds, seconds - self._running.spent(job.id))


class _SharedTime:
    """Divides elapsed time equally among concurrent jobs."""

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
        """Number of running jobs, at most the limit: a start may be reported before the end of the previous job."""
        return max(1, min(self._max_concurrency, len(self._spent)))

    def start(self, job_id: str) -> None:
        self._advance()
        self._started_at[job_id] = self._seen_at
        self._spent[job_id] = 0.0

    def stop(self, job_id: str) -> tuple[float, float]:
        """Remove a job; return the seconds since its start, and its share of them."""
        self._advance()
        return self._seen_at - self._started_at.pop(job_id, self._seen_at), self._spent.pop(job_id, 0.0)

    def spent(self, job_id: str) -> float:
        """Return a running job's share of the elapsed time, in seconds."""
        return self._spent[job_id] + (self._clock() - self._seen_at) / self.concurrency

    def _advance(self) -> None:
        now = self._clock()
        for job_id in self._spent:
            self._spent[job_id] += (now - self._seen_at) / self.concurrency
        self._seen_at = now
