"""The door of the queue: what may come in, what it can cost, and what the refused are told."""

from contextlib import suppress
from dataclasses import dataclass, replace

from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import EventType
from allaprima.domain.generation import GenerationRequest, LongPromptPolicy
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobOptions, JobOutcome, JobState, QueueLoad, StoredImage
from allaprima.domain.models import ModelInfo
from allaprima.domain.ports import Clock, Engine
from allaprima.errors import (
    Draining,
    FieldProblem,
    InvalidRequest,
    QueueFull,
    ScopeMissing,
    StoreError,
)
from allaprima.service.accounts.prices import Prices
from allaprima.service.jobs.cache import fingerprint
from allaprima.service.jobs.dispatcher import RESTART_S, Dispatcher
from allaprima.service.jobs.turnstile import Turnstile
from allaprima.service.webhooks import Webhooks
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository

#: Of an answer for which nothing was painted.
NO_TIMINGS = dict.fromkeys(("inference", "text", "decode", "safety", "encode"), 0.0)
#: The scope that a key must have to paint.
SCOPE = "model:image"


@dataclass(frozen=True, slots=True)
class Quote:
    """What a request would come to."""

    #: Tokens of the prompt, and how many of them its model reads.
    tokens: int
    room: int
    credits: int
    #: Seconds that it would keep the engine.
    seconds: float
    #: When it would start, unix seconds.
    predicted_start: float


class Admission:
    """Lets requests in as jobs, or says why not."""

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        images: ImageRepository,
        engine: Engine,
        clock: Clock,
        dispatcher: Dispatcher,
        prices: Prices,
        webhooks: Webhooks,
        *,
        queue_size: int,
        image_ttl_s: float,
    ) -> None:
        self._jobs = jobs
        self._transitions = transitions
        self._images = images
        self._engine = engine
        self._clock = clock
        self._dispatcher = dispatcher
        self._prices = prices
        self._webhooks = webhooks
        self._queue_size = queue_size
        self._image_ttl_s = image_ttl_s
        self._turnstile = Turnstile()

    async def submit(
        self,
        key: ApiKey,
        request: GenerationRequest,
        terms: JobOptions,
        job_id: str,
        *,
        asked: str = "",
        claim: IdempotencyClaim | None = None,
        start_within_s: float | None = None,
    ) -> Job:
        """Store a job; from here on it can't be lost. Returns an earlier one where an equal request made it.

        asked: the request as it came, which is the same when it is sent again; claim: the client's word for that.
        Raises `InvalidRequest` for a prompt that is longer than the request lets it be or a webhook that may not be
        called, `ScopeMissing`, `OutOfCredits`, `KeyLimitReached`, `IdempotencyMismatch`, `QueueFull` or `Draining`.
        """
        check_scope(key)
        self._check_prompt(request)
        if self._dispatcher.is_draining:
            raise Draining(retry_after_s=RESTART_S)
        if claim and (before := await self._jobs.find_claimed(key.account_id, claim, self._clock())):
            return before
        if terms.webhook_url:
            await self._webhooks.expect(key.account_id, terms.webhook_url)
        job = self._new_job(key, request, terms, job_id, start_within_s)
        if terms.use_cache and (found := await self._find_cached(job)):
            # A picture may be removed while it is copied; then the request is painted as any other.
            with suppress(StoreError):
                return await self._answer_from_cache(job, *found, claim)
        admitted = await self._admit(job, claim, hash((key.id, asked)))
        if admitted.id == job.id:
            if job.start_by is not None:
                self._dispatcher.expect_start(job.id, job.start_by)
            self._dispatcher.wake()
        return admitted

    async def quote(self, key: ApiKey, request: GenerationRequest, terms: JobOptions) -> Quote:
        """Return what a request would come to, without taking it. Raises what `submit` does for a bad one."""
        check_scope(key)
        self._check_prompt(request)
        count = self._engine.tokens(request)
        seconds = self._dispatcher.timetable.pace.seconds(request)
        ahead = await self._jobs.ahead_of_new(key.id, terms.priority, seconds)
        return Quote(
            tokens=count.used,
            room=count.room,
            credits=self._prices.credits(terms.model, request, request.count),
            seconds=seconds,
            predicted_start=self._clock() + self._dispatcher.timetable.start_in(*ahead),
        )

    def _check_prompt(self, request: GenerationRequest) -> None:
        over = self._engine.tokens(request).over if request.on_long_prompt == LongPromptPolicy.REFUSE else 0
        if over:
            raise InvalidRequest(FieldProblem("prompt", f"has {over} tokens more than the model reads; shorten it"))

    def _new_job(
        self, key: ApiKey, request: GenerationRequest, terms: JobOptions, job_id: str, start_within_s: float | None
    ) -> Job:
        now = self._clock()
        return Job(
            id=job_id,
            account_id=key.account_id,
            key_id=key.id,
            state=JobState.QUEUED,
            request=request,
            created_at=now,
            terms=terms,
            predicted_s=self._dispatcher.timetable.pace.seconds(request),
            start_by=None if start_within_s is None else now + start_within_s,
            held=self._prices.credits(terms.model, request, request.count),
        )

    async def _admit(self, job: Job, claim: IdempotencyClaim | None, who: int) -> Job:
        """Let a job into the queue. Raises `QueueFull` where it is, or what room there is was promised to others."""
        was_told = self._turnstile.keep(self._clock(), who)
        if not was_told and self._turnstile.promised:
            load = await self._jobs.load()
            # Who was told to come and did not must not keep the engine idle.
            if load.unfinished and self._queue_size - load.unfinished <= self._turnstile.due(self._clock(), load.job_s):
                raise self._refusal(load, who, was_told=False)
        try:
            return await self._transitions.admit(job, self._queue_size, claim)
        except QueueFull:
            raise self._refusal(await self._jobs.load(), who, was_told=was_told) from None

    def _refusal(self, load: QueueLoad, who: int, *, was_told: bool) -> QueueFull:
        """Return what tells a client when it will find room."""
        room, room_in_s = self._queue_size - load.unfinished, self._dispatcher.timetable.room_in()
        job_s = load.job_s or room_in_s
        wait_s = self._turnstile.refuse(self._clock(), who, room, room_in_s, job_s, was_told=was_told)
        return QueueFull(retry_after_s=wait_s)

    # The result cache -------------------------------------------------------------------------------------------

    async def _find_cached(self, job: Job) -> tuple[Job, list[StoredImage]] | None:
        model = self._model(job.request.model)
        if model is None or not model.revision:
            return None
        return await self._jobs.cached(job.account_id, fingerprint(job.request, model), self._clock())

    def _model(self, model_id: str) -> ModelInfo | None:
        return next((info for info in self._engine.models if info.id == model_id), None)

    async def _answer_from_cache(
        self, job: Job, before: Job, pictures: list[StoredImage], claim: IdempotencyClaim | None
    ) -> Job:
        """Make the job succeeded at once, with files of its own, so that it ends as any other does."""
        rows = []
        for picture in pictures:
            image_id = str(uuid7())
            suffix = picture.object_name.rpartition(".")[2]
            expires_at = job.created_at + (job.terms.image_ttl_s or self._image_ttl_s)
            row = replace(
                picture,
                id=image_id,
                job_id=job.id,
                object_name=f"{image_id}.{suffix}",
                created_at=job.created_at,
                expires_at=expires_at,
            )
            await self._images.copy(picture.object_name, row.object_name)
            rows.append(row)
        charged = sum(not row.is_flagged for row in rows)
        credits_ = self._prices.credits(job.terms.model, job.request, charged, is_cached=True)
        assert before.result is not None  # it succeeded
        result = before.result | {
            "credits": credits_,
            "is_cached": True,
            "timings": NO_TIMINGS | {"steps": [0.0] * job.request.steps},
            "warnings": [*job.terms.warnings, *before.result["warnings"][len(before.terms.warnings) :]],
        }
        megapixels = job.request.width * job.request.height * charged / 1e6
        job = replace(job, held=credits_)
        done = await self._transitions.admit_finished(
            job, JobOutcome(result, tuple(rows), charged, megapixels, credits_), claim
        )
        if done.id == job.id:
            self._dispatcher.tell_end(done.id, EventType.SUCCEEDED)
        return done


def check_scope(key: ApiKey) -> None:
    """Raise `ScopeMissing` unless the key may generate images, and so read jobs, prompts and images."""
    if key.is_management or (key.scopes is not None and SCOPE not in key.scopes):
        raise ScopeMissing(SCOPE)
