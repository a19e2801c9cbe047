"""Jobs as they stand: one, a page, their pictures, their place in the fair_queue. What changes them is in `transitions`."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobState, Priority, StoredImage
from allaprima.errors import JobNotFound
from allaprima.store import fair_queue
from allaprima.store.database import Database, reads
from allaprima.store.idempotency import find_claim
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, image_from_row, job_from_row, read_job
from allaprima.store.schema import images, jobs, results


class Jobs:
    """Questions to the jobs table and what hangs on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def get(self, connection: Connection, job_id: str) -> Job | None:
        """Return a job."""
        return _find(connection, job_id)

    @reads
    def find_claimed(self, connection: Connection, account_id: str, claim: IdempotencyClaim, now: float) -> Job | None:
        """Return the job that an equal request made before, if any did.

        Raises `IdempotencyMismatch` for another request's claim, `JobNotFound` when the job was removed since.
        """
        made = find_claim(connection, account_id, claim, now)
        if made is None:
            return None
        job = _find(connection, made)
        if job is None:
            raise JobNotFound
        return job

    @reads
    def page(
        self,
        connection: Connection,
        account_id: str,
        *,
        state: JobState | None,
        group_id: str | None,
        key_id: str | None,
        before: str | None,
        limit: int,
    ) -> list[Job]:
        """Return an account's jobs, newest first; before: only those older than this id."""
        wanted = select(*JOB_COLUMNS).where(jobs.c.account_id == account_id)
        if state is not None:
            wanted = wanted.where(jobs.c.state == state.value)
        if group_id is not None:
            wanted = wanted.where(jobs.c.group_id == group_id)
        if key_id is not None:
            wanted = wanted.where(jobs.c.key_id == key_id)
        if before is not None:
            wanted = wanted.where(jobs.c.id < before)
        rows = connection.execute(wanted.order_by(jobs.c.id.desc()).limit(limit))
        return [job for job in map(read_job, rows) if job is not None]

    @reads
    def unfinished_of_group(self, connection: Connection, account_id: str, group_id: str) -> list[Job]:
        """Return what is queued or running of a group, oldest first."""
        wanted = select(*JOB_COLUMNS).where(
            jobs.c.account_id == account_id, jobs.c.group_id == group_id, jobs.c.state.in_(UNFINISHED)
        )
        return [job_from_row(row) for row in connection.execute(wanted.order_by(jobs.c.id))]

    @reads
    def images_of(self, connection: Connection, job_ids: Iterable[str], now: float) -> dict[str, list[StoredImage]]:
        """Return the pictures of some jobs that have not expired, in order, by job id."""
        found: dict[str, list[StoredImage]] = {job_id: [] for job_id in job_ids}
        alive = images.c.job_id.in_(list(found)), images.c.expires_at > now
        wanted = select(images).where(*alive).order_by(images.c.job_id, images.c.place)
        for row in connection.execute(wanted):
            found[row.job_id].append(image_from_row(row))
        return found

    @reads
    def ahead_of(self, connection: Connection, job_id: str) -> tuple[int, float, float] | None:
        """See `fair_queue.ahead_of`."""
        return fair_queue.ahead_of(connection, job_id)

    @reads
    def ahead_of_new(
        self, connection: Connection, key_id: str, priority: Priority, predicted_s: float
    ) -> tuple[int, float]:
        """See `fair_queue.ahead_of_new`."""
        return fair_queue.ahead_of_new(connection, key_id, *fair_queue.lane(priority), predicted_s)

    @reads
    def load(self, connection: Connection) -> fair_queue.Load:
        """See `fair_queue.load`."""
        return fair_queue.load(connection)

    @reads
    def start_deadlines(self, connection: Connection) -> list[tuple[str, float]]:
        """Return id and latest start of every queued job that has one."""
        wanted = select(jobs.c.id, jobs.c.start_by).where(
            jobs.c.state == JobState.QUEUED.value, jobs.c.start_by.is_not(None)
        )
        return [(row.id, row.start_by) for row in connection.execute(wanted)]

    @reads
    def cached(
        self, connection: Connection, account_id: str, fingerprint: str, now: float
    ) -> tuple[Job, list[StoredImage]] | None:
        """Return the account's job that painted just this, while all its pictures are there."""
        wanted = select(results.c.job_id).where(
            results.c.account_id == account_id, results.c.fingerprint == fingerprint
        )
        job_id = connection.execute(wanted).scalar()
        alive = select(images).where(images.c.job_id == job_id, images.c.expires_at > now).order_by(images.c.place)
        pictures = [image_from_row(row) for row in connection.execute(alive)]
        job = _find(connection, job_id) if job_id else None
        return (job, pictures) if job and len(pictures) == job.request.count else None


def _find(connection: Connection, job_id: str) -> Job | None:
    row = connection.execute(FIND_JOB, {"id": job_id}).first()
    return read_job(row) if row else None
