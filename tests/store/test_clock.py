"""The record of the clock, and the deadlines that move with it."""

from typing import Any

from sqlalchemy import Connection, select

from allaprima.domain.accounts import ApiKey
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.store.clock import ClockRecord, ClockRepository
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.schema import idempotency_records, images, jobs, webhook_deliveries
from tests.clock import NOW
from tests.store.factories import new_image, new_job, new_outcome
from tests.store.reaping import WORKER

DAY = 86_400


async def column(database: Database, which: Any) -> list[Any]:
    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(which)).scalars())

    return await database.read(read)


async def test_record_is_replaced(database: Database) -> None:
    records = ClockRepository(database)
    assert await records.find() is None
    for record in (ClockRecord("boot", 1.5, 0), ClockRecord(None, -2.5, -3600)):
        await records.save(record)
        assert await records.find() == record


async def test_deadlines_move_and_other_times_stay(database: Database, owner: ApiKey) -> None:
    transitions, record = JobTransitions(database), ClockRecord("boot", 1.0, 400 * DAY)
    done = new_job(owner, webhook_url="http://hooks.test/")
    await transitions.admit(done, 10, IdempotencyClaim("key", "fingerprint"))
    leased = (await transitions.lease(WORKER, NOW)).job
    assert leased is not None
    await transitions.succeed(leased, NOW, new_outcome(new_image(done)))
    await transitions.admit(new_job(owner, start_by=NOW + 5), 10)

    await ClockRepository(database).shift_deadlines(400 * DAY, record)

    moved = NOW + 400 * DAY
    assert await ClockRepository(database).find() == record
    assert await column(database, images.c.expires_at) == [moved + 60]
    assert await column(database, jobs.c.start_by) == [None, moved + 5]
    assert await column(database, idempotency_records.c.created_at) == [moved]
    assert await column(database, webhook_deliveries.c.next_at) == [moved]
    assert await column(database, images.c.created_at) == [NOW]
    assert await column(database, jobs.c.created_at) == [NOW, NOW]
    assert await column(database, jobs.c.finished_at) == [NOW, None]
