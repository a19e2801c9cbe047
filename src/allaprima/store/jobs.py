"""Jobs, read: one, a page, their images, their position in the queue. `job_transitions` changes them."""

from collections.abc import Iterable
from itertools import islice

from sqlalchemy import Connection, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import UNFINISHED, Job, JobFilter, Priority, QueueLoad, StoredImage
from allaprima.errors import JobNotFound
from allaprima.store import fair_queue
from allaprima.store.database import Repository, reads
from allaprima.store.idempotency import find_resource
from allaprima.store.rows import FIND_JOB, JOB_COLUMNS, image_from_row, readable_job
from allaprima.store.schema import cached_results, images, jobs


class JobRepository(Repository):
    """Reads the jobs table and what belongs to a job."""

    @reads
    def get(self, connection: Connection, job_id: str) -> Job | None:
        """Return a job."""
        return _find(connection, job_id)

    @reads
    def find_claimed(self, connection: Connection, account_id: str, claim: IdempotencyClaim, now: float) -> Job | None:
        """Return the job that an equal request created, if any did.

        Raises `IdempotencyMismatch` for another request's key, `JobNotFound` when the job was removed since.
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
        """Return an account's jobs, newest first; fewer than the limit only when there are no more."""
        query = select(*JOB_COLUMNS).where(jobs.c.account_id == account_id)
        if wanted.state is not None:
            query = query.where(jobs.c.state == wanted.state.value)
        if wanted.group_id is not None:
            query = query.where(jobs.c.group_id == wanted.group_id)
        if wanted.key_id is not None:
            query = query.where(jobs.c.key_id == wanted.key_id)
        if wanted.before is not None:
            query = query.where(jobs.c.id < wanted.before)
        # Without a limit in SQL, since an unreadable row does not count.
        query = query.order_by(jobs.c.id.desc()).execution_options(yield_per=limit)
        with connection.execute(query) as rows:
            return list(islice((job for job in map(readable_job, rows) if job is not None), limit))

    @reads
    def unfinished_of_group(self, connection: Connection, account_id: str, group_id: str) -> list[Job]:
        """Return the queued and running jobs of a group, oldest first."""
        wanted = select(*JOB_COLUMNS).where(
            jobs.c.account_id == account_id, jobs.c.group_id == group_id, jobs.c.state.in_(UNFINISHED)
        )
        found = map(readable_job, connection.execute(wanted.order_by(jobs.c.id)))
        return [job for job in found if job is not None]

    @reads
    def images_of(self, connection: Connection, job_ids: Iterable[str], now: float) -> dict[str, list[StoredImage]]:
        """Return the images of some jobs that have not expired, in order, by job id."""
        found: dict[str, list[StoredImage]] = {job_id: [] for job_id in job_ids}
        alive = images.c.job_id.in_(list(found)), images.c.expires_at > now
        wanted = select(images).where(*alive).order_by(images.c.job_id, images.c.position)
        for row in connection.execute(wanted):
            found[row.job_id].append(image_from_row(row))
        return found

    @reads
    def ahead_of(self, connection: Connection, job_id: str) -> tuple[int, float, float] | None:
        """Return how many jobs wait before a queued one, their estimated seconds, and its own; None if not queued."""
        return fair_queue.ahead_of(connection, job_id)

    @reads
    def ahead_of_new(
        self, connection: Connection, key_id: str, priority: Priority, predicted_s: float
    ) -> tuple[int, float]:
        """Return how many jobs would wait before a key's next one, and their estimated seconds."""
        return fair_queue.ahead_of_new(connection, key_id, *fair_queue.lane(priority), predicted_s)

    @reads
    def load(self, connection: Connection) -> QueueLoad:
        """Return what the queue holds."""
        return fair_queue.load(connection)

    @reads
    def cached(
        self, connection: Connection, account_id: str, fingerprint: str, now: float
    ) -> tuple[Job, list[StoredImage]] | None:
        """Return the account's job that generated the same request, while all its images are there."""
        wanted = select(cached_results.c.job_id).where(
            cached_results.c.account_id == account_id, cached_results.c.fingerprint == fingerprint
        )
        job_id = connection.execute(wanted).scalar()
        alive = select(images).where(images.c.job_id == job_id, images.c.expires_at > now).order_by(images.c.position)
        found = [image_from_row(row) for row in connection.execute(alive)]
        job = _find(connection, job_id) if job_id else None
        return (job, found) if job and len(found) == job.request.count else None


def _find(connection: Connection, job_id: str) -> Job | None:
    row = connection.execute(FIND_JOB, {"id": job_id}).first()
    return readable_job(row) if row else None
