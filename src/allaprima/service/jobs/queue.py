"""The entrance of the queue."""

from collections import deque
from itertools import islice

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, Submission
from allaprima.domain.ports import Clock, QueueSignal
from allaprima.errors import QueueFull
from allaprima.service.jobs.eta import Eta
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Most refusals that an estimate is spread over.
MAX_REFUSALS = 10_000


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
        #: Times at which clients refused lately were asked to come back, unix seconds.
        self._returns: deque[float] = deque(maxlen=MAX_REFUSALS)

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
            self._signal.notify()
        return admitted

    async def _retry_after(self) -> float:
        """Return the seconds until a slot frees that no client refused before was asked to come back for.

        A slot frees once a job. Nothing is reserved: the estimate only keeps refused clients from returning together.
        """
        now, room_in = self._clock(), self._eta.room_in()
        job_s = (await self._jobs.load()).job_s or room_in
        expected = sorted(at for at in islice(self._returns, None) if at > now)
        wait_s = room_in + len(expected) * job_s
        self._returns = deque((*expected, now + wait_s), MAX_REFUSALS)
        return wait_s
