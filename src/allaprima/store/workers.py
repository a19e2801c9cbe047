"""The workers' registrations. A worker has a lease, which its heartbeats renew; leased jobs are its own until it ends.

Leases are counted by the database's clock alone, since two machines' clocks differ. In SQLite a lease has no end: the
lock of the data folder proves that all workers but one are dead.
"""

from sqlalchemy import Connection, delete, insert, or_, select, update

from allaprima.domain.workers import Heartbeat, WorkerRecord
from allaprima.store import dialect, fair_queue
from allaprima.store.database import Repository, writes
from allaprima.store.schema import jobs, workers

#: Seconds of a lease. A constant: of two processes that differ in it, one would take the other for dead.
LEASE_S = 10.0


class WorkerRepository(Repository):
    """Registers workers and renews their leases."""

    @writes
    def register(self, connection: Connection, worker: WorkerRecord) -> None:
        """Register a new worker."""
        values = {"id": worker.id, "name": worker.name, "version": worker.version, "concurrency": worker.concurrency}
        # If the answer of an earlier try was lost, the worker is registered already.
        connection.execute(delete(workers).where(workers.c.id == worker.id))
        connection.execute(insert(workers).values(values | {"started_at": dialect.Now()}))
        _renew(connection, worker.id)

    def renew(self, worker_id: str) -> Heartbeat:
        """Renew a worker's lease, in the calling thread, which must not be the event loop's. Raises `StoreError`."""
        return self._database.write_blocking(lambda connection: _beat(connection, worker_id))

    @writes
    def remove(self, connection: Connection, worker_id: str) -> None:
        """Remove a worker that has requeued its jobs."""
        connection.execute(delete(workers).where(workers.c.id == worker_id))


def lock_registered(connection: Connection, worker_id: str) -> bool:
    """Keep a worker from being taken for dead until the transaction ends; return False if it was, or its lease is over.

    A lease of a job locks its worker first. Otherwise a worker could lease a job just after it was taken for dead, and
    the job would run forever.
    """
    has_lease = or_(workers.c.leased_until.is_(None), workers.c.leased_until >= dialect.Now())
    own = select(workers.c.id).where(workers.c.id == worker_id, has_lease)
    return connection.execute(own.with_for_update(read=True, key_share=True)).first() is not None


def _beat(connection: Connection, worker_id: str) -> Heartbeat:
    # A lease that a crash of the database shortens by one heartbeat does no harm.
    dialect.commit_without_flush(connection)
    if not _renew(connection, worker_id):
        return Heartbeat(is_registered=False)
    own = select(jobs.c.id, jobs.c.cancel_asked_at).where(
        fair_queue.RUNNING, jobs.c.queue.in_(fair_queue.QUEUES), jobs.c.worker_id == worker_id
    )
    found = connection.execute(own).all()
    return Heartbeat(
        is_registered=True,
        running=frozenset(job_id for job_id, _ in found),
        cancelled=frozenset(job_id for job_id, cancel_asked_at in found if cancel_asked_at is not None),
    )


def _renew(connection: Connection, worker_id: str) -> bool:
    own = workers.c.id == worker_id
    if dialect.has_one_writer(connection):
        return connection.execute(select(workers.c.id).where(own)).first() is not None
    renewed = update(workers).where(own).values(leased_until=dialect.Now() + LEASE_S)
    return connection.execute(renewed).rowcount == 1
