"""Conversion between table rows and the domain's types."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Row, bindparam, select

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions, JobResult, JobState, StoredImage
from allaprima.store.schema import jobs

#: The exceptions of `job_from_row` for a row that another version of the server wrote: its JSON has other members, or
#: values out of bounds.
UNREADABLE = (LookupError, TypeError, ValueError)

#: The columns of a `Job`; only the queue uses the other columns of the table.
JOB_COLUMNS = tuple(jobs.c[field.name] for field in fields(Job))
FIND_JOB = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("id"))
_JOB_NAMES = tuple(field.name for field in fields(Job))
_IMAGE_NAMES = tuple(field.name for field in fields(StoredImage))


def job_from_row(row: Row[Any]) -> Job:
    """Return a row of `JOB_COLUMNS` as a `Job`. Raises one of `UNREADABLE` when this version can't read the row."""
    values = {name: getattr(row, name) for name in _JOB_NAMES}
    values["state"] = JobState(values["state"])
    values["request"] = GenerationRequest.model_validate(values["request"])
    values["options"] = JobOptions.model_validate(values["options"])
    values["result"] = None if values["result"] is None else JobResult.model_validate(values["result"])
    return Job(**values)


def readable_job(row: Row[Any]) -> Job | None:
    """Return a row of `JOB_COLUMNS` as a `Job`, or None when this version can't read the row."""
    try:
        return job_from_row(row)
    except UNREADABLE:
        return None


def job_values(job: Job) -> dict[str, Any]:
    """Return the values of `JOB_COLUMNS` for a new job; the queue adds its own columns."""
    values = {name: getattr(job, name) for name in _JOB_NAMES}
    return values | {
        "state": job.state.value,
        "request": job.request.model_dump(mode="json"),
        "options": job.options.model_dump(mode="json"),
        "result": None if job.result is None else job.result.model_dump(mode="json"),
    }


def image_from_row(row: Row[Any]) -> StoredImage:
    """Return a row of the images table as a `StoredImage`."""
    values = {name: getattr(row, name) for name in _IMAGE_NAMES}
    return StoredImage(**values | {"seed": int(values["seed"]), "is_flagged": bool(values["is_flagged"])})


def image_values(image: StoredImage) -> dict[str, Any]:
    """Return the column values of an image. The table stores the seed as text and `is_flagged` as 0 or 1."""
    values = {name: getattr(image, name) for name in _IMAGE_NAMES}
    return values | {"seed": str(image.seed), "is_flagged": int(image.is_flagged)}
