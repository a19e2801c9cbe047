"""The entrance of the queue."""

from bisect import bisect_left, bisect_right, insort

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, Submission
from allaprima.domain.ports import Clock, QueueSignal
from allaprima.errors import QueueFull
from allaprima.service.jobs.eta import Eta
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Most refusals that an estimate is spread over.
MAX_REFUSALS = 10_000
#: Seconds after the time that it was asked for within which a client that comes back is recognised.
RETURN_S = 0.1
#: Clients that come back within this share of a job of each other would find one slot between them.
SAME_SLOT = 0.1


class JobQueue:
    """Queues jobs, and estimates for refused ones when a slot frees."""

    def __init__(
        self, jobs: JobRepository, transitions: JobTransitions, eta: Eta, signal: QueueSignal, clock: Clock, size: int
    ) -> None:
        """size: most jobs that may be unfinished."""
        self._jobs = jobs
        self._transitions = transitions
        self._eta = eta
        self._signal = signal
        self._clock = clock
        self._size = size
        #: Times at which clients refused lately were asked to come back, unix seconds, the earliest first.
        self._returns: list[float] = []

    async def find(self, submission: Submission) -> Job | None:
        """Return the job that an equal request created before, if any did.

        Raises `IdempotencyMismatch` or `JobNotFound`.
        """
        if submission.claim is None:
            return None
        return await self._jobs.find_claimed(submission.key.account_id, submission.claim, self._clock())

    async def add(self, job: Job, claim: IdempotencyClaim | None) -> Job:
        """Store a job; it can't be lost from here on. Returns an earlier one where an equal request created it.

        Raises `QueueFull` with the estimated seconds until a slot frees, or what `JobTransitions.admit` does.
        """
        try:
            admitted = await self._transitions.admit(job, self._size, claim)
        except QueueFull:
            raise QueueFull(retry_after_s=await self._retry_after()) from None
        if admitted.id == job.id:
            self._take_return(self._clock())
            self._signal.notify()
        return admitted

    async def _retry_after(self) -> float:
        """Return the seconds until a slot frees that no client refused before was asked to come back for.

        A slot frees once a job. A client that came when it was asked to, and found the engine slower than estimated,
        is asked to come for the next slot; every other client for the one after all that are expected. Nothing is
        reserved: the estimate only keeps refused clients from returning together.
        """
        now, room_in = self._clock(), self._eta.room_in()
        has_returned = self._take_return(now)
        job_s = (await self._jobs.load()).job_s or room_in
        slots = len(self._returns) - bisect_right(self._returns, now)
        if has_returned:
            slots = 0
            while self._is_expected(now + room_in + slots * job_s, SAME_SLOT * job_s):
                slots += 1
        wait_s = room_in + slots * job_s
        if len(self._returns) < MAX_REFUSALS:
            insort(self._returns, now + wait_s)
        return wait_s

    def _take_return(self, now: float) -> bool:
        """Whether a client was asked to come back about now; it is then no longer expected."""
        del self._returns[: bisect_left(self._returns, now - RETURN_S)]
        if not self._returns or self._returns[0] > now:
            return False
        del self._returns[0]
        return True

    def _is_expected(self, at: float, within_s: float) -> bool:
        """Whether a client was asked to come back less than some seconds from a time."""
        return bisect_right(self._returns, at - within_s) < bisect_left(self._returns, at + within_s)
