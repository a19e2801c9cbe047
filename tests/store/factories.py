"""Rows for the tests of the store."""

import itertools
from dataclasses import replace
from typing import Any

from allaprima.domain.accounts import ApiKey
from allaprima.domain.billing import EntryDirection, EntryType, LedgerEntry
from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job, JobOptions, JobOutcome, JobResult, JobState, StoredImage
from tests.clock import NOW

TIMINGS = Timings(text=0.1, steps=(0.1, 0.1), decode=0.1, safety=0.1, encode=0.1)
RESULT = JobResult(model="allaprima/sketch", revision="5" * 40, precision="fp32", credits=0, timings=TIMINGS)
REQUEST = GenerationRequest(prompt="a boat", seed=2**63 - 1, model="allaprima/sketch")
_numbers = itertools.count()


def new_job(owner: ApiKey, request: GenerationRequest = REQUEST, created_at: float = NOW, **fields: Any) -> Job:
    """Return a queued job with the next id. fields: values of the job and of its options."""
    options = {name: fields.pop(name) for name in tuple(fields) if name in JobOptions.model_fields}
    return Job(
        id=f"job-{next(_numbers):06}",
        account_id=owner.account_id,
        key_id=owner.id,
        state=JobState.QUEUED,
        request=request,
        created_at=created_at,
        options=JobOptions(**{"model": request.model} | options),
        **fields,
    )


def new_image(job: Job, position: int = 0, **fields: Any) -> StoredImage:
    """Return an image row that expires a minute after `NOW`."""
    image = StoredImage(
        id=f"{job.id}-{position}-{next(_numbers)}",
        job_id=job.id,
        position=position,
        object_name=f"{job.id}-{position}.png",
        content_type="image/png",
        size_bytes=100,
        sha256="0" * 64,
        seed=2**63 - 1,
        nsfw_score=0.5,
        is_flagged=False,
        created_at=NOW,
        expires_at=NOW + 60,
    )
    return replace(image, **fields)


def new_outcome(*images: StoredImage, credits_: int = 0, **fields: Any) -> JobOutcome:
    """Return the outcome of a job that is charged for one image."""
    result = RESULT.model_copy(update={"credits": credits_})
    return JobOutcome(**{"result": result, "images": images, "charged": 1, "megapixels": 0.25} | fields)


def new_entry(credits_: int, created_at: float = NOW, **fields: Any) -> LedgerEntry:
    """Return a payment with the next id."""
    values = {"direction": EntryDirection.TOPUP, "type": EntryType.PAYMENT}
    return LedgerEntry(id=f"entry-{next(_numbers):06}", created_at=created_at, credits=credits_, **values | fields)
