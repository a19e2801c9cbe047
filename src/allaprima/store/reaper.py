"""Takes the jobs of dead workers back into the queue.

A worker is dead when its lease is over. Each judge doubts itself first: it reaps only if it has reached the database
for a whole lease, and the database has run for one, since nothing renewed a lease while the database was away.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select, true, update

from allaprima.domain.jobs import JobState
from allaprima.errors import GenerationFailed
from allaprima.store import dialect, fair_queue
from allaprima.store.database import Repository, reads, writes
from allaprima.store.job_transitions import end_job, fail_unreadable, requeue_job
from allaprima.store.rows import JOB_COLUMNS, UNREADABLE, job_from_row
from allaprima.store.schema import jobs, workers
from allaprima.store.workers import LEASE_S

# `queue IN` lets SQLite use the partial index of the state.
_RUNNING = and_(fair_queue.RUNNING, jobs.c.queue.in_(fair_queue.QUEUES))
_RUNNING_ALONE = and_(_RUNNING, ~exists().where(workers.c.id == jobs.c.worker_id))
_WAITING_ALONE = and_(fair_queue.QUEUED, jobs.c.waits_at.is_not(None), ~exists().where(workers.c.id == jobs.c.waits_at))


@dataclass(frozen=True, slots=True)
class Reaped:
    """The jobs of dead workers."""

    #: Number of jobs that are queued again.
    requeued: int = 0
    #: Jobs that ended instead, with their final states.
    ended: tuple[tuple[str, JobState], ...] = ()


class Reaper(Repository):
    """Finds dead workers, removes them and requeues their jobs."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes may be workers of this database at the same time."""
        return self._database.is_shared

    async def reap(self, worker_id: str, max_crashes: int, now: float, *, judges: bool = True) -> Reaped:
        """Remove dead workers, and requeue the running jobs of workers that are not registered.

        A job that was running in `max_crashes` crashes fails, and a job that a client cancelled is cancelled. Jobs
        whose images are not stored are cancelled, queued ones too: the connections of their clients ended with the
        worker. worker_id: the registered worker that does this; in SQLite all others are dead. now: unix seconds.
        judges: whether workers whose lease is over are removed; else they keep their jobs.
        """
        # This runs often, so a read decides whether a writing transaction is needed.
        if not await self._has_dead(worker_id, judges=judges):
            return Reaped()
        return await self._reap(worker_id, max_crashes, now, judges=judges)

    @reads
    def _has_dead(self, connection: Connection, worker_id: str, *, judges: bool) -> bool:
        found = [select(jobs.c.id).where(_RUNNING_ALONE), select(jobs.c.id).where(_WAITING_ALONE)]
        if judges:
            found.append(select(workers.c.id).where(_is_dead(connection, worker_id)))
        return any(connection.execute(query.limit(1)).first() is not None for query in found)

    @writes
    def _reap(self, connection: Connection, worker_id: str, max_crashes: int, now: float, *, judges: bool) -> Reaped:
        dead = _lock_dead(connection, worker_id) if judges else []
        for dead_id, concurrency in dead:
            _count_crashes(connection, and_(_RUNNING, jobs.c.worker_id == dead_id), concurrency)
        # Jobs that an earlier version ran, and those of a worker whose row was lost.
        own = connection.execute(select(workers.c.concurrency).where(workers.c.id == worker_id)).scalar()
        _count_crashes(connection, _RUNNING_ALONE, own or 1)
        connection.execute(delete(workers).where(workers.c.id.in_([dead_id for dead_id, _ in dead])))
        return _take_back(connection, max_crashes, now)


def _is_dead(connection: Connection, worker_id: str) -> ColumnElement[bool]:
    lease_is_over = true() if dialect.has_one_writer(connection) else workers.c.leased_until < dialect.Now()
    return and_(workers.c.id != worker_id, lease_is_over)


def _lock_dead(connection: Connection, worker_id: str) -> list[tuple[str, int]]:
    """Lock the dead workers, so that none of them leases a job; return their ids and concurrencies."""
    if dialect.uptime(connection) < LEASE_S:
        return []
    found = select(workers.c.id, workers.c.concurrency).where(_is_dead(connection, worker_id)).order_by(workers.c.id)
    return [(row.id, row.concurrency) for row in connection.execute(found.with_for_update(skip_locked=True))]


def _count_crashes(connection: Connection, condition: ColumnElement[bool], concurrency: int) -> None:
    """Count a crash of the jobs that a worker generated when it died.

    The engine generates in the order of the leases: only the first `concurrency` leased jobs had begun, so only they
    can have caused the crash.
    """
    begun = select(jobs.c.id).where(condition).order_by(jobs.c.started_at, jobs.c.turn, jobs.c.id).limit(concurrency)
    connection.execute(update(jobs).where(jobs.c.id.in_(begun.scalar_subquery())).values(crashes=jobs.c.crashes + 1))


def _take_back(connection: Connection, max_crashes: int, now: float) -> Reaped:
    requeued, ended = 0, []
    # One query per state, in the order of that state's partial index, so that SQLite uses it.
    for condition, order in ((_RUNNING_ALONE, (jobs.c.queue, jobs.c.turn)), (_WAITING_ALONE, (jobs.c.waits_at,))):
        left = select(*JOB_COLUMNS).where(condition).order_by(*order, jobs.c.id).with_for_update(of=jobs)
        for row in connection.execute(left).all():
            try:
                job = job_from_row(row)
            except UNREADABLE:
                fail_unreadable(connection, row, now)
                ended.append((row.id, JobState.FAILED))
                continue
            if job.cancel_asked_at is not None or not job.options.store:
                end_job(connection, job, JobState.CANCELLED, now)
                ended.append((job.id, JobState.CANCELLED))
            elif job.crashes >= max_crashes:
                error = GenerationFailed(f"the server crashed {max_crashes} times while it generated this job")
                end_job(connection, job, JobState.FAILED, now, error=error)
                ended.append((job.id, JobState.FAILED))
            else:
                requeue_job(connection, job)
                requeued += 1
    return Reaped(requeued, tuple(ended))
