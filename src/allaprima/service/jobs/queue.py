"""Admission to the queue, and the retry times of refused requests."""

from bisect import bisect_left, bisect_right, insort

from allaprima.domain.clock import Clock
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, Submission
from allaprima.domain.ports import QueueSignal
from allaprima.errors import QueueFull
from allaprima.service.jobs.eta import Eta
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Largest number of expected retries that are tracked.
MAX_REFUSALS = 10_000
#: Seconds after its Retry-After within which a request counts as the expected retry.
RETRY_TOLERANCE_S = 0.1
#: Two retries that are closer than this share of a job's duration would compete for the same slot.
SLOT_TOLERANCE = 0.1


class JobQueue:
    """Queues jobs, and estimates when a refused request can be retried."""

    def __init__(
        self, jobs: JobRepository, transitions: JobTransitions, eta: Eta, signal: QueueSignal, clock: Clock, size: int
    ) -> None:
        """size: largest number of unfinished jobs."""
        self._jobs = jobs
        self._transitions = transitions
        self._eta = eta
        self._signal = signal
        self._clock = clock
        self._size = size
        #: Times at which refused requests are expected to be retried, in unix seconds, in ascending order.
        self._retries: list[float] = []

    async def find(self, submission: Submission) -> Job | None:
        """Return the job of an earlier request with the same claim, or None.

        Raises `IdempotencyMismatch`, or `JobNotFound` if that job was deleted.
        """
        if submission.claim is None:
            return None
        return await self._jobs.find_claimed(submission.key.account_id, submission.claim, self._clock())

    async def add(self, job: Job, claim: IdempotencyClaim | None) -> Job:
        """Store a job durably and return it. A repeated claim returns the job of the first request.

        Raises `QueueFull` with the estimated seconds until a slot frees, or the errors of `JobTransitions.admit`.
        """
        try:
            admitted = await self._transitions.admit(job, self._size, claim)
        except QueueFull:
            raise QueueFull(retry_after_s=await self._retry_after()) from None
        if admitted.id == job.id:
            self._take_retry(self._clock())
            self._signal.notify()
        return admitted

    async def _retry_after(self) -> float:
        """Return the seconds until a slot frees for which no other retry is expected.

        A slot frees whenever a job ends. A request that was retried on time, but found the engine slower than
        estimated, gets the next slot without an expected retry; any other request gets the slot after all expected
        retries. Slots are not reserved: the estimate only spreads the retries over time.
        """
        now, next_slot_in = self._clock(), self._eta.next_slot_in()
        is_retry = self._take_retry(now)
        job_s = (await self._jobs.load()).job_s or next_slot_in
        slots = len(self._retries) - bisect_right(self._retries, now)
        if is_retry:
            slots = 0
            while self._is_expected(now + next_slot_in + slots * job_s, SLOT_TOLERANCE * job_s):
                slots += 1
        wait_s = next_slot_in + slots * job_s
        if len(self._retries) < MAX_REFUSALS:
            insort(self._retries, now + wait_s)
        return wait_s

    def _take_retry(self, now: float) -> bool:
        """Remove the retry that is expected now, if there is one, and return whether there was."""
        del self._retries[: bisect_left(self._retries, now - RETRY_TOLERANCE_S)]
        if not self._retries or self._retries[0] > now:
            return False
        del self._retries[0]
        return True

    def _is_expected(self, at: float, within_s: float) -> bool:
        """Whether a retry is expected less than `within_s` seconds before or after a time."""
        return bisect_right(self._retries, at - within_s) < bisect_left(self._retries, at + within_s)
