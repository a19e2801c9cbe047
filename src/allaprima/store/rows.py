"""Conversion between table rows and the domain's types."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import Row, bindparam, select

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions, JobResult, JobState, StoredImage
from allaprima.store.schema import jobs

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The exceptions of the conversions for a row that is damaged, or that another version of the server wrote: its JSON
#: has other members, or values out of bounds.
UNREADABLE = (LookupError, TypeError, ValueError)

#: The columns of a `Job`; only the queue uses the other columns of the table.
JOB_COLUMNS = tuple(jobs.c[field.name] for field in fields(Job))
FIND_JOB = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("id"))
_JOB_NAMES = tuple(field.name for field in fields(Job))
_IMAGE_NAMES = tuple(field.name for field in fields(StoredImage))
#: SQLite stores any value in any column, so the columns that hold numbers are checked.
_JOB_NUMBERS = ("created_at", "started_at", "finished_at", "attempt", "crashes", "predicted_s", "start_by", "held")
_IMAGE_NUMBERS = ("position", "size_bytes", "nsfw_score", "created_at", "expires_at")


def check_numbers(row: Row[Any], names: Iterable[str]) -> None:
    """Raise `TypeError` if a column holds a value that is neither a number nor null."""
    for name in names:
        if not isinstance(value := getattr(row, name), int | float | None):
            raise TypeError(f"{name} is {type(value).__name__}, not a number")


def readable(rows: Iterable[Row[Any]], convert: Callable[[Row[Any]], T]) -> Iterator[T]:
    """Convert rows. An unreadable one is skipped and logged by its id, so that it hides no other."""
    for row in rows:
        try:
            yield convert(row)
        except UNREADABLE as exc:
            logger.warning("skipped the unreadable row %.100r: %s", row.id, exc)


def job_from_row(row: Row[Any]) -> Job:
    """Return a row of `JOB_COLUMNS` as a `Job`. Raises one of `UNREADABLE` when this version can't read the row."""
    check_numbers(row, _JOB_NUMBERS)
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
    """Return a row of the images table as a `StoredImage`. Raises one of `UNREADABLE`."""
    check_numbers(row, _IMAGE_NUMBERS)
    values = {name: getattr(row, name) for name in _IMAGE_NAMES}
    flags = {name: bool(values[name]) for name in ("is_flagged", "is_starred")}
    return StoredImage(**values | flags | {"seed": int(values["seed"])})


def image_values(image: StoredImage) -> dict[str, Any]:
    """Return the column values of an image. The table stores the seed as text and flags as 0 or 1."""
    values = {name: getattr(image, name) for name in _IMAGE_NAMES}
    flags = {name: int(values[name]) for name in ("is_flagged", "is_starred")}
    return values | flags | {"seed": str(image.seed)}
