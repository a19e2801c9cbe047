"""Workers that die, and the worker that takes their jobs back."""

import asyncio

from allaprima.domain.workers import WorkerRecord
from allaprima.store import dialect
from allaprima.store.database import Database
from allaprima.store.reaper import Reaped, Reaper
from allaprima.store.workers import LEASE_S, WorkerRepository
from tests.store.backends import run

#: The id of the worker that the tests lease with.
WORKER = "worker"


async def register(database: Database, worker_id: str = WORKER, concurrency: int = 1) -> str:
    """Register a worker; return its id."""
    await WorkerRepository(database).register(WorkerRecord(worker_id, "test", "0", concurrency))
    return worker_id


async def end_leases(database: Database) -> None:
    """Let the lease of every worker end, as if none had sent a heartbeat."""
    await run(database, "UPDATE workers SET leased_until = 0 WHERE leased_until IS NOT NULL")
    # After a start of the server, no worker is taken for dead until each could renew its lease.
    await asyncio.sleep(max(0.0, LEASE_S - await database.read(dialect.uptime)))


async def reap(database: Database, max_crashes: int, now: float, concurrency: int = 1) -> Reaped:
    """Let all workers die, and have a new one take their jobs back; register `WORKER` again."""
    await end_leases(database)
    reaped = await Reaper(database).reap(await register(database, "reaper"), max_crashes, now)
    await register(database, concurrency=concurrency)
    return reaped
