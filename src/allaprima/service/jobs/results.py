"""What a painting comes to in the store: the rows of its pictures, and what its job is charged with."""

import hashlib

from uuid_utils import uuid7

from allaprima.domain.generation import GeneratedImage, GenerationResult
from allaprima.domain.jobs import Job, JobOutcome, StoredImage
from allaprima.service.accounts.prices import Prices


def image_row(job: Job, place: int, image: GeneratedImage, now: float, expires_at: float) -> StoredImage:
    """Return the row of a picture, with an id and a file's name of its own."""
    image_id = str(uuid7())
    return StoredImage(
        id=image_id,
        job_id=job.id,
        place=place,
        object_name=f"{image_id}.{job.request.image_format.value}",
        content_type=job.request.image_format.content_type,
        size_bytes=len(image.data),
        sha256=hashlib.sha256(image.data).hexdigest(),
        seed=image.seed,
        nsfw_score=image.nsfw_score,
        is_flagged=image.is_flagged,
        created_at=now,
        expires_at=expires_at,
    )


def outcome_of(
    job: Job, painting: GenerationResult, rows: tuple[StoredImage, ...], prices: Prices, fingerprint: str | None
) -> JobOutcome:
    """Return what a job ends with. fingerprint: its name in the result cache, if it may be found there."""
    charged = sum(not image.is_flagged for image in painting.images)
    # Never more than was held back, though prices may have risen since.
    credits_ = min(job.held, prices.credits(job.terms.model, job.request, charged))
    timings = painting.timings
    result = {
        "model": painting.model,
        "revision": painting.revision,
        "precision": painting.precision,
        "credits": credits_,
        "warnings": [*job.terms.warnings, *painting.warnings],
        "timings": {
            "inference": timings.inference,
            "text": timings.text,
            "steps": list(timings.steps),
            "decode": timings.decode,
            "safety": timings.safety,
            "encode": timings.encode,
        },
    }
    megapixels = job.request.width * job.request.height * charged / 1e6
    return JobOutcome(result, rows, charged, megapixels, credits_, fingerprint)
