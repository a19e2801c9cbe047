"""Jobs and pictures as the store gives them, and back."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, select

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import UNFINISHED, JobOptions, JobState
from allaprima.errors import Error
from allaprima.store.schema import images, jobs


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    id: str
    account_id: str
    key_id: str
    state: JobState
    request: GenerationRequest
    created_at: float
    terms: JobOptions
    started_at: float | None = None
    finished_at: float | None = None
    #: How often it was leased; the fencing token of a result.
    attempt: int = 0
    #: How often the server died while it was painted.
    crashes: int = 0
    error_code: str | None = None
    error_message: str | None = None
    result: dict[str, Any] | None = None
    #: Seconds that it was thought to take.
    predicted_s: float = 0.0
    #: When it must have started, unix seconds.
    start_by: float | None = None
    cancel_asked_at: float | None = None
    #: Credits held back for it.
    held: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A stored picture."""

    id: str
    job_id: str
    #: Place within the job, from 0.
    place: int
    object_name: str
    content_type: str
    size_bytes: int
    #: Of the file, hex.
    sha256: str
    seed: int
    nsfw_score: float | None
    is_flagged: bool
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a painted job."""

    #: Model, revision, timings and warnings, for the job's row.
    result: dict[str, Any]
    pictures: tuple[ImageRow, ...]
    #: Images that are charged: painted and not withheld.
    images: int
    megapixels: float
    credits: int
    #: Under which name later requests find these pictures in the result cache, if they may.
    fingerprint: str | None = None


#: What a `Job` is made of; the rest of the table is the queue's own.
JOB_COLUMNS = tuple(
    column for column in jobs.c if column.name not in ("group_id", "queue", "priority", "turn", "leased_until")
)

#: Asks for one job, by `id`.
FIND_JOB = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("id"))
_JOB_NAMES = tuple(column.name for column in JOB_COLUMNS)
_IMAGE_NAMES = tuple(column.name for column in images.c)


def job_from_row(row: Row[Any]) -> Job:
    """Return a row of `JOB_COLUMNS` as a `Job`. Raises what `GenerationRequest` does for one of another version."""
    values = {name: getattr(row, name) for name in _JOB_NAMES}
    values["state"] = JobState(values["state"])
    values["request"] = GenerationRequest.from_json(values["request"])
    # Jobs of earlier versions have no terms.
    values["terms"] = JobOptions.from_json(values["terms"] or {"model": values["request"].model})
    return Job(**values)


def read_job(row: Row[Any]) -> Job | None:
    """Return the same, or None where another version wrote what this one can't read."""
    try:
        return job_from_row(row)
    except (Error, LookupError, TypeError, ValueError):
        return None


def image_from_row(row: Row[Any]) -> ImageRow:
    """Return a row of the images table as an `ImageRow`."""
    values = {name: getattr(row, name) for name in _IMAGE_NAMES}
    return ImageRow(**values | {"seed": int(values["seed"]), "is_flagged": bool(values["is_flagged"])})


def image_values(picture: ImageRow) -> dict[str, Any]:
    """Undo `image_from_row`."""
    values = {name: getattr(picture, name) for name in _IMAGE_NAMES}
    return values | {"seed": str(picture.seed), "is_flagged": int(picture.is_flagged)}
