"""Admission to the queue, and the retry times of refused requests."""

from allaprima.domain.clock import Clocks
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, Submission
from allaprima.domain.ports import QueueSignal
from allaprima.errors import QueueFull
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.retries import ExpectedRetries
from allaprima.service.jobs.worker import Worker
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository


class JobQueue:
    """Queues jobs, and estimates when a refused request can be retried.

    While clients of other keys are expected to retry, a key that has its share of the queue leaves a place to each of
    them. So a key that floods the server lengthens its own waiting times only.
    """

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        eta: Eta,
        signal: QueueSignal,
        worker: Worker,
        clocks: Clocks,
        size: int,
    ) -> None:
        """size: largest number of unfinished jobs. worker: runs the jobs whose clients wait in this process."""
        self._jobs = jobs
        self._transitions = transitions
        self._eta = eta
        self._signal = signal
        self._worker = worker
        self._clock, self._monotonic = clocks
        self._size = size
        self._retries = ExpectedRetries()

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
        size, is_over = self._size, False
        if others := self._retries.others(job.key_id, self._monotonic()):
            is_over = await self._jobs.unfinished_of_key(job.key_id) >= max(2, size / (others + 1))
            if is_over:
                size = max(size // 2, size - others, 1)
        try:
            admitted = await self._transitions.admit(job, size, claim, self._waits_at(job))
        except QueueFull:
            raise QueueFull(retry_after_s=await self._retry_after(job.key_id, is_over=is_over)) from None
        if admitted.id == job.id:
            self._retries.take(job.key_id, self._monotonic())
            self._signal.notify()
        return admitted

    def _waits_at(self, job: Job) -> str | None:
        # Images that are not stored are handed to the waiting client, in the memory of this process.
        return None if job.options.store else self._worker.id

    async def _retry_after(self, key_id: str, *, is_over: bool) -> float:
        now, next_slot_in = self._monotonic(), self._eta.next_slot_in()
        is_retry = self._retries.take(key_id, now)
        job_s = (await self._jobs.load()).job_s or next_slot_in
        return self._retries.wait(key_id, now, next_slot_in, job_s, is_retry=is_retry, is_over=is_over)
