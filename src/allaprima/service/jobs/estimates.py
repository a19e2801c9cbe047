"""Estimates the cost and the time of requests."""

from allaprima.domain.clock import Clock
from allaprima.domain.generation import GenerationRequest, LongPromptPolicy
from allaprima.domain.jobs import Estimate, Job, JobState, Submission
from allaprima.domain.ports import Roster
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.service.accounts.prices import Prices
from allaprima.service.jobs.eta import Eta
from allaprima.store.jobs import JobRepository


class Estimates:
    """Creates jobs and estimates from submissions."""

    def __init__(self, jobs: JobRepository, roster: Roster, eta: Eta, prices: Prices, clock: Clock) -> None:
        self._jobs = jobs
        self._roster = roster
        self._eta = eta
        self._prices = prices
        self._clock = clock

    def check_prompt(self, request: GenerationRequest) -> None:
        """Raise `InvalidRequest` if the prompt has too many tokens and the request does not allow its truncation."""
        if request.on_long_prompt != LongPromptPolicy.REFUSE:
            return
        if over := self._roster.tokens(request).over:
            raise InvalidRequest(FieldProblem("prompt", f"has {over} tokens more than the model reads; shorten it"))

    def new_job(self, submission: Submission) -> Job:
        """Return the queued job of a submission, with its estimated seconds and the credits to hold."""
        now, within_s = self._clock(), submission.start_within_s
        return Job(
            id=submission.job_id,
            account_id=submission.key.account_id,
            key_id=submission.key.id,
            state=JobState.QUEUED,
            request=submission.request,
            created_at=now,
            options=submission.options,
            predicted_s=self._eta.seconds(submission.request),
            start_by=None if within_s is None else now + within_s,
            held=self._prices.credits(submission.options.model, submission.request, submission.request.count),
        )

    async def estimate(self, submission: Submission) -> Estimate:
        """Return the cost and time of a submission. Raises `InvalidRequest` for a prompt that is too long."""
        request, options = submission.request, submission.options
        self.check_prompt(request)
        tokens, seconds = self._roster.tokens(request), self._eta.seconds(request)
        ahead = await self._jobs.ahead_of_new(submission.key.id, options.priority, seconds)
        return Estimate(
            request=request,
            options=options,
            tokens=tokens.used,
            max_tokens=tokens.limit,
            credits=self._prices.credits(options.model, request, request.count),
            seconds=seconds,
            predicted_start=self._clock() + self._eta.start_in(*ahead),
            prompt_warnings=self._roster.prompt_warnings(request),
        )
