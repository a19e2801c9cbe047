"""Admission: checks submissions and accepts them as jobs."""

from allaprima.domain.jobs import Estimate, Job, Submission
from allaprima.errors import Draining, Error
from allaprima.metrics import Metrics
from allaprima.service.image_space import ImageSpace
from allaprima.service.jobs.estimates import Estimates
from allaprima.service.jobs.queue import JobQueue
from allaprima.service.jobs.result_cache import ResultCache
from allaprima.service.lifecycle import RESTART_S, Lifecycle
from allaprima.service.webhooks import Webhooks


class Admission:
    """Accepts submissions as jobs."""

    def __init__(
        self,
        estimates: Estimates,
        cache: ResultCache,
        queue: JobQueue,
        webhooks: Webhooks,
        space: ImageSpace,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> None:
        self._estimates = estimates
        self._cache = cache
        self._queue = queue
        self._webhooks = webhooks
        self._space = space
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def submit(self, submission: Submission) -> Job:
        """Store a submission as a job and return the job. A repeated claim returns the job of the first request.

        Raises `InvalidRequest` for a prompt that is too long or a webhook URL that is not allowed, `ScopeMissing`,
        `Unauthorized`, `OutOfCredits`, `KeyLimitReached`, `IdempotencyMismatch`, `JobNotFound`, `QueueFull`,
        `Draining`, or `ImageLimitReached` for images that are to be stored.
        """
        try:
            return await self._submit(submission)
        except Error as exc:
            if exc.is_refusal:
                self._metrics.refused(exc.code)
            raise

    async def _submit(self, submission: Submission) -> Job:
        submission.key.require_image_scope()
        self._estimates.check_prompt(submission.request)
        if self._lifecycle.is_draining:
            raise Draining(retry_after_s=RESTART_S)
        if earlier := await self._queue.find(submission):
            return earlier
        if url := submission.options.webhook_url:
            await self._webhooks.check(submission.key.account_id, url)
        if submission.options.store:
            await self._space.check()
        job = self._estimates.new_job(submission)
        if submission.options.use_cache and (done := await self._cache.answer(job, submission.claim)):
            return done
        return await self._queue.add(job, submission.claim)

    async def estimate(self, submission: Submission) -> Estimate:
        """Return the cost and time of a submission without accepting it. Raises `InvalidRequest` or `ScopeMissing`."""
        submission.key.require_image_scope()
        return await self._estimates.estimate(submission)
