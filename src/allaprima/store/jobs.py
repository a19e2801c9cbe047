"""Queries of jobs, their images and their queue positions. `job_transitions` changes jobs."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobFilter, JobProgress, JobState, Priority, QueueLoad, StoredImage
from allaprima.errors import JobNotFound
from allaprima.store import fair_queue
from allaprima.store.database import Repository, reads
from allaprima.store.idempotency import find_resource
from allaprima.store.image_rows import is_alive
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, image_from_row, readable, readable_job
from allaprima.store.schema import cached_results, images, jobs


class JobRepository(Repository):
    """Reads jobs, their images and their queue positions."""

    @reads
    def get(self, connection: Connection, job_id: str) -> Job | None:
        """Return a job; None when the id is unknown or this version can't read the row."""
        return _find(connection, job_id)

    @reads
    def progress(self, connection: Connection, job_ids: Collection[str]) -> list[JobProgress]:
        """Return how far each job is, also one whose row this version can't read. Unknown ids are left out."""
        wanted = select(jobs.c.id, jobs.c.state, jobs.c.attempt, jobs.c.cancel_asked_at.is_not(None))
        rows = connection.execute(wanted.where(jobs.c.id.in_(job_ids)))
        return [JobProgress(job_id, JobState(state), attempt, bool(asked)) for job_id, state, attempt, asked in rows]

    @reads
    def find_claimed(self, connection: Connection, account_id: str, claim: IdempotencyClaim, now: float) -> Job | None:
        """Return the job that an earlier request with the same idempotency key created; None if there is no such job.

        Raises `IdempotencyMismatch` when the earlier request had other content, `JobNotFound` when its job was removed.
        """
        job_id = find_resource(connection, account_id, claim, now)
        if job_id is None:
            return None
        job = _find(connection, job_id)
        if job is None:
            raise JobNotFound
        return job

    @reads
    def page(self, connection: Connection, account_id: str, wanted: JobFilter, limit: int) -> list[Job]:
        """Return an account's newest jobs that match the filter, newest first.

        The list has `limit` jobs, or fewer if no more jobs match. Rows that this version can't read are skipped.
        """
        query = select(*JOB_COLUMNS).where(jobs.c.account_id == account_id)
        if wanted.state is not None:
            query = query.where(jobs.c.state == wanted.state.value)
        if wanted.group_id is not None:
            query = query.where(jobs.c.group_id == wanted.group_id)
        if wanted.key_id is not None:
            query = query.where(jobs.c.key_id == wanted.key_id)
        if wanted.before is not None:
            query = query.where(jobs.c.id < wanted.before)
        query = query.order_by(jobs.c.id.desc()).limit(limit)
        rows = connection.execute(query).all()
        found = [job for job in map(readable_job, rows) if job is not None]
        # Unreadable rows do not count.
        while len(found) < limit and len(rows) == limit:
            rows = connection.execute(query.where(jobs.c.id < rows[-1].id)).all()
            found += [job for job in map(readable_job, rows) if job is not None]
        return found[:limit]

    @reads
    def unfinished_of_group(self, connection: Connection, account_id: str, group_id: str) -> list[Job]:
        """Return the queued and running jobs of a group, oldest first."""
        wanted = select(*JOB_COLUMNS).where(
            jobs.c.account_id == account_id, jobs.c.group_id == group_id, jobs.c.state.in_(UNFINISHED)
        )
        found = map(readable_job, connection.execute(wanted.order_by(jobs.c.id)))
        return [job for job in found if job is not None]

    @reads
    def unfinished_of_account(self, connection: Connection, account_id: str) -> list[Job]:
        """Return the queued and running jobs of an account, oldest first."""
        wanted = select(*JOB_COLUMNS).where(jobs.c.account_id == account_id, jobs.c.state.in_(UNFINISHED))
        found = map(readable_job, connection.execute(wanted.order_by(jobs.c.id)))
        return [job for job in found if job is not None]

    @reads
    def images_of(self, connection: Connection, job_ids: Collection[str], now: float) -> dict[str, list[StoredImage]]:
        """Return the unexpired images of each job, by job id, ordered by position."""
        found: dict[str, list[StoredImage]] = {job_id: [] for job_id in job_ids}
        alive = images.c.job_id.in_(list(found)), is_alive(now)
        wanted = select(images).where(*alive).order_by(images.c.job_id, images.c.position)
        for image in readable(connection.execute(wanted), image_from_row):
            found[image.job_id].append(image)
        return found

    @reads
    def ahead_of(self, connection: Connection, job_id: str) -> tuple[int, float, float] | None:
        """Return the number of jobs ahead of a queued job, their estimated seconds, and the job's own.

        Returns None when the job is not queued.
        """
        return fair_queue.ahead_of(connection, job_id)

    @reads
    def ahead_of_new(
        self, connection: Connection, key_id: str, priority: Priority, predicted_s: float
    ) -> tuple[int, float]:
        """Return the number of jobs that would be ahead of a key's next job, and their estimated seconds."""
        return fair_queue.ahead_of_new(connection, key_id, *fair_queue.lane(priority), predicted_s)

    @reads
    def unfinished_of_key(self, connection: Connection, key_id: str) -> int:
        """Return the number of a key's queued and running jobs."""
        return fair_queue.count_of_key(connection, key_id)

    @reads
    def load(self, connection: Connection) -> QueueLoad:
        """Return the number of queued and unfinished jobs and the estimated seconds of the queued ones."""
        return fair_queue.load(connection)

    @reads
    def cached(
        self, connection: Connection, account_id: str, fingerprint: str, now: float
    ) -> tuple[Job, list[StoredImage]] | None:
        """Return the account's job whose request has this fingerprint, with its images; None if one has expired."""
        wanted = select(cached_results.c.job_id).where(
            cached_results.c.account_id == account_id, cached_results.c.fingerprint == fingerprint
        )
        job_id = connection.execute(wanted).scalar()
        alive = select(images).where(images.c.job_id == job_id, is_alive(now)).order_by(images.c.position)
        found = list(readable(connection.execute(alive), image_from_row))
        job = _find(connection, job_id) if job_id else None
        return (job, found) if job and len(found) == job.request.count else None


def _find(connection: Connection, job_id: str) -> Job | None:
    row = connection.execute(FIND_JOB, {"id": job_id}).first()
    return readable_job(row) if row else None
