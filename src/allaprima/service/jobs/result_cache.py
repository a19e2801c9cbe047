"""The result cache: reuses the images of an identical request to the same weights, precision and kernels.

Each account has its own cache, because a fast response would reveal the requests of other accounts.
"""

import hashlib
import json
from dataclasses import replace

from uuid_utils import uuid7

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobOutcome, JobState, StoredImage
from allaprima.domain.models import ModelInfo
from allaprima.domain.ports import Roster
from allaprima.errors import StoreError
from allaprima.service.accounts.prices import Prices
from allaprima.service.jobs.reporter import JobReporter
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository


def fingerprint(request: GenerationRequest, model: ModelInfo) -> str:
    """Return a hash of everything that determines the images: request, weights, precision and kernels."""
    parts = [request.model_dump(mode="json"), model.revision, model.precision, model.kernels]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ResultCache:
    """Fulfils requests with copies of stored images."""

    def __init__(
        self,
        jobs: JobRepository,
        transitions: JobTransitions,
        images: ImageRepository,
        roster: Roster,
        prices: Prices,
        reporter: JobReporter,
        image_ttl_s: float,
    ) -> None:
        self._jobs = jobs
        self._transitions = transitions
        self._images = images
        self._roster = roster
        self._prices = prices
        self._reporter = reporter
        self._image_ttl_s = image_ttl_s

    def key(self, request: GenerationRequest) -> str | None:
        """Return the cache key of a request, or None while its model is not loaded."""
        model = next((info for info in self._roster.models if info.id == request.model), None)
        return fingerprint(request, model) if model and model.revision else None

    async def answer(self, job: Job, claim: IdempotencyClaim | None) -> Job | None:
        """Store a job as succeeded with copies of cached images, and return it. None: there are no cached images.

        Raises the errors of `JobTransitions.admit_finished`.
        """
        key = self.key(job.request)
        found = await self._jobs.cached(job.account_id, key, job.created_at) if key else None
        if found is None:
            return None
        earlier, cached = found
        try:
            copies = tuple([await self._copy(image, job) for image in cached])
        except StoreError:
            # An image was removed while it was copied, so the request is generated.
            return None
        outcome = self._outcome(job, earlier, copies)
        job = replace(job, held=outcome.result.credits)
        done = await self._transitions.admit_finished(job, outcome, claim)
        if done.id == job.id:
            self._reporter.ended(done.id, JobState.SUCCEEDED)
        return done

    async def _copy(self, image: StoredImage, job: Job) -> StoredImage:
        image_id = str(uuid7())
        copy = replace(
            image,
            id=image_id,
            job_id=job.id,
            object_name=f"{image_id}.{image.object_name.rpartition('.')[2]}",
            created_at=job.created_at,
            expires_at=job.created_at + (job.options.image_ttl_s or self._image_ttl_s),
            is_starred=False,
        )
        await self._images.copy(image, copy.object_name)
        return copy

    def _outcome(self, job: Job, earlier: Job, images: tuple[StoredImage, ...]) -> JobOutcome:
        assert earlier.result is not None  # the earlier job succeeded
        charged = sum(not image.is_flagged for image in images)
        result = earlier.result.model_copy(
            update={
                "credits": self._prices.credits(job.options.model, job.request, charged, is_cached=True),
                "is_cached": True,
                "timings": Timings(text=0.0, steps=(0.0,) * job.request.steps, decode=0.0, safety=0.0, encode=0.0),
                "warnings": (*job.options.warnings, *earlier.result.warnings[len(earlier.options.warnings) :]),
            }
        )
        return JobOutcome(result, images, charged, job.request.megapixels * charged)
