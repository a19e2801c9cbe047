"""Cancels jobs."""

from contextlib import suppress

from allaprima.domain.clock import Clock
from allaprima.domain.hints import Hint, HintKind
from allaprima.domain.jobs import Job, JobState
from allaprima.domain.ports import Hints
from allaprima.errors import Draining, GenerationTimeout, JobFinished, JobNotFound
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.jobs.service import JobService
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Longest wait for the engine to confirm a cancellation, in seconds.
CONFIRM_TIMEOUT_S = 2.0


class Cancellation:
    """Cancels one job, or all jobs of a group or an account."""

    def __init__(
        self,
        service: JobService,
        jobs: JobRepository,
        transitions: JobTransitions,
        runner: JobRunner,
        reporter: JobReporter,
        hints: Hints,
        clock: Clock,
    ) -> None:
        self._service = service
        self._jobs = jobs
        self._transitions = transitions
        self._runner = runner
        self._reporter = reporter
        self._hints = hints
        self._clock = clock

    async def cancel(self, account_id: str, job_id: str) -> Job:
        """Cancel a job; return it after the engine has stopped it, or after `CONFIRM_TIMEOUT_S`.

        Raises `JobNotFound`, or `JobFinished` for a job that has ended.
        """
        await self._service.get(account_id, job_id)
        job = await self._transitions.request_cancel(job_id, self._clock())
        if job.state == JobState.CANCELLED:
            self._reporter.ended(job_id, JobState.CANCELLED)
            return job
        if not self._runner.cancel(job_id):
            # If the hint is lost, the heartbeat of the job's worker reports the stored request.
            self._hints.send(Hint(HintKind.CANCEL, job_id))
        with suppress(GenerationTimeout, Draining):
            job = await self._service.wait(job, CONFIRM_TIMEOUT_S)
        if job.is_finished and job.state != JobState.CANCELLED:
            raise JobFinished(job.state.value)
        return job

    async def cancel_group(self, account_id: str, group_id: str) -> list[Job]:
        """Cancel all unfinished jobs of a group; return the cancelled jobs."""
        return await self._cancel_all(account_id, await self._jobs.unfinished_of_group(account_id, group_id))

    async def cancel_account(self, account_id: str) -> list[Job]:
        """Cancel all unfinished jobs of an account; return the cancelled jobs."""
        return await self._cancel_all(account_id, await self._jobs.unfinished_of_account(account_id))

    async def _cancel_all(self, account_id: str, unfinished: list[Job]) -> list[Job]:
        cancelled = []
        # Queued jobs first, because the engine would start them as soon as running jobs stop.
        for job in sorted(unfinished, key=lambda job: job.state == JobState.RUNNING):
            # A job may end or be deleted while others are cancelled.
            with suppress(JobNotFound, JobFinished):
                cancelled.append(await self.cancel(account_id, job.id))
        return cancelled
