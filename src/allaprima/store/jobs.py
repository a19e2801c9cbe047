"""Statements about jobs, their images and their usage. Every change of a job's state is made here, in one
transaction with what belongs to it; the states are drawn in `schema.JobState`.
"""

import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from allaprima.errors import Error
from allaprima.request import ImageRequest
from allaprima.store.database import Database
from allaprima.store.schema import JobState, images, jobs, usage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    id: str
    account_id: str
    key_id: str
    state: JobState
    request: ImageRequest
    created_at: float
    started_at: float | None
    finished_at: float | None
    #: How often it was leased; the fencing token of a result.
    attempt: int
    #: How often the server died while it was painted.
    crashes: int
    error_code: str | None
    error_message: str | None
    result: dict[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state not in (JobState.QUEUED, JobState.RUNNING)


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
class UsageRow:
    """What a job is charged with."""

    model: str
    #: Images that were painted and not withheld.
    images: int
    megapixels: float
    credits: int


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    values["state"] = JobState(values["state"])
    values["request"] = ImageRequest.from_json(values["request"])
    return Job(**values)


def image_from_row(row: Row[Any]) -> ImageRow:
    """Return a row of the images table as an `ImageRow`."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    return ImageRow(**values | {"seed": int(values["seed"]), "is_flagged": bool(values["is_flagged"])})


class Jobs:
    """The jobs table and what hangs on it. The database is the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job: Job) -> None:
        """Store a new queued job."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(jobs).values(
                    id=job.id,
                    account_id=job.account_id,
                    key_id=job.key_id,
                    state=job.state.value,
                    request=job.request.to_json(),
                    created_at=job.created_at,
                )
            )

    async def get(self, job_id: str) -> Job | None:
        """Return a job."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).first()
        return _job(row) if row else None

    async def images_of(self, job_id: str) -> list[ImageRow]:
        """Return a job's pictures in order."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(images).where(images.c.job_id == job_id).order_by(images.c.place))
            return [image_from_row(row) for row in rows]

    async def count_waiting(self) -> int:
        """Return how many jobs are queued or running."""
        waiting = jobs.c.state.in_((JobState.QUEUED.value, JobState.RUNNING.value))
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).where(waiting))).scalar_one()

    async def lease(self, now: float) -> Job | None:
        """queued -> running: take the oldest queued job, if there is one, and count the attempt.

        A job whose request this version can't read (an older or newer one wrote it) fails on the way: queued -> failed.
        """
        oldest = (
            select(jobs.c.id)
            .where(jobs.c.state == JobState.QUEUED.value)
            .order_by(jobs.c.created_at, jobs.c.id)
            .limit(1)
            .scalar_subquery()
        )
        taken = (
            update(jobs)
            .where(jobs.c.id == oldest)
            .values(state=JobState.RUNNING.value, started_at=now, attempt=jobs.c.attempt + 1)
            .returning(*jobs.c)
        )
        async with self._database.write() as connection:
            while row := (await connection.execute(taken)).first():
                try:
                    return _job(row)
                except (Error, LookupError, TypeError, ValueError) as exc:
                    logger.warning("job %s: its stored request can't be read: %s", row.id, exc)
                    await connection.execute(
                        update(jobs)
                        .where(jobs.c.id == row.id)
                        .values(
                            state=JobState.FAILED.value,
                            finished_at=now,
                            error_code="generation_failed",
                            error_message="the stored request can't be read by this version of the server",
                        )
                    )
        return None

    async def requeue(self, job: Job) -> None:
        """running -> queued, for a job whose attempt was interrupted by the server itself."""
        await self._leave_running(job, state=JobState.QUEUED.value, started_at=None)

    async def requeue_all(self, max_crashes: int, now: float) -> int:
        """At start: running -> queued for what a dead server left, or failed after too many crashes.

        Returns how many jobs wait again.
        """
        left = jobs.c.state == JobState.RUNNING.value
        async with self._database.write() as connection:
            # The engine paints in the order of the leases; the others only waited there.
            painted = select(jobs.c.id).where(left).order_by(jobs.c.started_at, jobs.c.created_at, jobs.c.id).limit(1)
            await connection.execute(
                update(jobs).where(jobs.c.id == painted.scalar_subquery()).values(crashes=jobs.c.crashes + 1)
            )
            await connection.execute(
                update(jobs)
                .where(left, jobs.c.crashes >= max_crashes)
                .values(
                    state=JobState.FAILED.value,
                    finished_at=now,
                    error_code="generation_failed",
                    error_message=f"the server died {max_crashes} times while it painted this",
                )
            )
            again = await connection.execute(
                update(jobs).where(left).values(state=JobState.QUEUED.value, started_at=None)
            )
        return again.rowcount

    async def succeed(
        self, job: Job, now: float, result: dict[str, Any], pictures: list[ImageRow], charge: UsageRow
    ) -> bool:
        """running -> succeeded, with the pictures and the usage, in one transaction.

        Returns False, and changes nothing, when the attempt is no longer the current one.
        """
        async with self._database.write() as connection:
            done = await connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.attempt == job.attempt, jobs.c.state == JobState.RUNNING.value)
                .values(state=JobState.SUCCEEDED.value, finished_at=now, result=result)
            )
            if done.rowcount != 1:
                return False
            await connection.execute(
                insert(images),
                [
                    {column.name: getattr(picture, column.name) for column in images.c}
                    | {"seed": str(picture.seed), "is_flagged": int(picture.is_flagged)}
                    for picture in pictures
                ],
            )
            await connection.execute(
                insert(usage).values(
                    job_id=job.id,
                    account_id=job.account_id,
                    key_id=job.key_id,
                    model=charge.model,
                    images=charge.images,
                    megapixels=charge.megapixels,
                    credits=charge.credits,
                    created_at=now,
                )
            )
        return True

    async def fail(self, job: Job, now: float, code: str, message: str) -> None:
        """running -> failed, with the reason."""
        await self._leave_running(
            job, state=JobState.FAILED.value, finished_at=now, error_code=code, error_message=message
        )

    async def cancel(self, job: Job, now: float) -> None:
        """running -> cancelled."""
        await self._leave_running(job, state=JobState.CANCELLED.value, finished_at=now)

    async def _leave_running(self, job: Job, **values: Any) -> None:
        async with self._database.write() as connection:
            await connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.attempt == job.attempt, jobs.c.state == JobState.RUNNING.value)
                .values(**values)
            )
