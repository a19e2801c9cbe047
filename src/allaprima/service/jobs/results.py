"""Stores the images that the engine generated."""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from uuid_utils import uuid7

from allaprima.domain.clock import Clock
from allaprima.domain.generation import GeneratedImage, GenerationResult
from allaprima.domain.jobs import Job, JobOutcome, JobResult, JobState, StoredImage
from allaprima.domain.ports import EphemeralResults
from allaprima.errors import Cancelled
from allaprima.service.accounts.prices import Prices
from allaprima.service.jobs.image_writer import ImageWriter
from allaprima.service.jobs.result_cache import ResultCache

logger = logging.getLogger(__name__)


class ResultStore:
    """Writes image files or has them delivered, and computes the outcome of a job."""

    def __init__(
        self,
        writer: ImageWriter,
        ephemeral: EphemeralResults,
        cache: ResultCache,
        prices: Prices,
        clock: Clock,
        image_ttl_s: float,
    ) -> None:
        self._writer = writer
        self._ephemeral = ephemeral
        self._cache = cache
        self._prices = prices
        self._clock = clock
        self._image_ttl_s = image_ttl_s

    async def store(self, job: Job, result: GenerationResult) -> JobOutcome:
        """Write and flush the image files; return the outcome to commit. Raises `StoreError`."""
        stored = []
        for position, image in enumerate(result.images):
            row = self._row(job, position, image)
            await self._writer.write(row.object_name, image.data)
            stored.append(row)
        return self._outcome(job, result, tuple(stored), self._cache.key(job.request))

    async def until_storable(self) -> None:
        """Wait while a job's images were given up because the store is away, until it answers or the server stops."""
        await self._writer.until_available()

    @asynccontextmanager
    async def delivered(self, job: Job, result: GenerationResult) -> AsyncIterator[JobOutcome]:
        """Give the result of a job with `store=false` to its client; yield the outcome to commit within the context.

        Nothing is written. Raises `Cancelled` if the client does not receive the result.
        """
        outcome = self._outcome(job, result, (), None)
        succeeded = replace(job, state=JobState.SUCCEEDED, result=outcome.result)
        async with self._ephemeral.offer(succeeded, result) as is_delivered:
            if not is_delivered:
                logger.warning("job %s is cancelled: its client has not received the images", job.id)
                raise Cancelled
            yield outcome

    def abandon(self, job_id: str) -> None:
        """Cancel the delivery of a job's result, if there is one."""
        self._ephemeral.abandon(job_id)

    def _row(self, job: Job, position: int, image: GeneratedImage) -> StoredImage:
        image_id, now = str(uuid7()), self._clock()
        return StoredImage(
            id=image_id,
            job_id=job.id,
            position=position,
            object_name=f"{image_id}.{job.request.image_format.value}",
            content_type=job.request.image_format.content_type,
            size_bytes=len(image.data),
            sha256=hashlib.sha256(image.data).hexdigest(),
            seed=image.seed,
            nsfw_score=image.nsfw_score,
            is_flagged=image.is_flagged,
            created_at=now,
            expires_at=now + (job.options.image_ttl_s or self._image_ttl_s),
        )

    def _outcome(
        self, job: Job, result: GenerationResult, stored: tuple[StoredImage, ...], fingerprint: str | None
    ) -> JobOutcome:
        charged = sum(not image.is_flagged for image in result.images)
        # At most the held credits, because the price may have risen since admission.
        credits_ = min(job.held, self._prices.credits(job.options.model, job.request, charged))
        report = JobResult(
            model=result.model,
            revision=result.revision,
            precision=result.precision.value,
            credits=credits_,
            timings=result.timings,
            # The generator's warnings repeat words of the prompt, which `store=false` keeps off the disk.
            warnings=(*job.options.warnings, *(result.warnings if job.options.store else ())),
        )
        return JobOutcome(report, stored, charged, job.request.megapixels * charged, fingerprint)
