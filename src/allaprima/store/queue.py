"""The order in which jobs are leased: fair between keys, by priority within a key.

Start-time fair queueing (Goyal, Vin and Cheng 1997): a job's turn is the later of the queue's virtual time and its
key's last turn, moved on by the seconds that the job is thought to take. So a key that sends a thousand jobs has a
thousand turns far ahead, and the one job of another key goes between the first of them. A turn is a key's, not a job's:
priority, then age, decides which of a key's jobs takes its next turn, so nobody gets ahead of another key by calling a
job urgent. Jobs of the low
queue run only while the ordinary one is empty.
"""

from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from allaprima.store.schema import UNFINISHED, JobState, jobs

#: The queues of `schema.jobs`.
ORDINARY, LOW = 0, 1
# Written out, not passed as a parameter: only so does SQLite see that the queue's partial indexes apply.
_QUEUED = jobs.c.state == literal_column(f"'{JobState.QUEUED.value}'")
_ORDER = (jobs.c.queue, jobs.c.turn, jobs.c.id)


async def count_queued(connection: AsyncConnection) -> int:
    """Return how many jobs wait."""
    return (await connection.execute(select(func.count()).select_from(jobs).where(_QUEUED))).scalar_one()


async def count_unfinished(connection: AsyncConnection) -> int:
    """Return how many jobs wait or run."""
    unfinished = jobs.c.state.in_([state.value for state in UNFINISHED])
    return (await connection.execute(select(func.count()).select_from(jobs).where(unfinished))).scalar_one()


async def next_turn(connection: AsyncConnection, key_id: str, queue: int, predicted_s: float) -> float:
    """Return the turn of a key's new job."""
    of_queue = jobs.c.queue == queue
    running = select(func.max(jobs.c.turn)).where(jobs.c.state == JobState.RUNNING.value, of_queue)
    first = select(func.min(jobs.c.turn)).where(_QUEUED, of_queue)
    last_of_key = select(func.max(jobs.c.turn)).where(_QUEUED, jobs.c.key_id == key_id, of_queue)
    virtual_time = func.coalesce(running.scalar_subquery(), first.scalar_subquery(), 0.0)
    found = select(virtual_time, last_of_key.scalar_subquery())
    now, last = (await connection.execute(found)).one()
    return float(max(now, last or 0.0)) + max(predicted_s, 1e-3)


async def take_next(connection: AsyncConnection) -> str | None:
    """Return the id of the job whose turn it is, if any waits; its key's other jobs keep the turns that are left."""
    first = await _head(connection, ORDINARY) or await _head(connection, LOW)
    if first is None:
        return None
    most_urgent = (
        select(jobs.c.id, jobs.c.turn)
        .where(_QUEUED, jobs.c.key_id == first.key_id, jobs.c.queue == first.queue)
        .order_by(jobs.c.priority, jobs.c.id)
        .limit(1)
    )
    chosen = (await connection.execute(most_urgent)).one()
    if chosen.id != first.id:
        await _set_turn(connection, first.id, chosen.turn)
        await _set_turn(connection, chosen.id, first.turn)
    return str(chosen.id)


async def _head(connection: AsyncConnection, queue: int) -> Any:
    # One queue at a time: with both, the order would be sorted out anew instead of read off its index.
    of_queue = _QUEUED, jobs.c.queue == queue
    head = select(jobs.c.id, jobs.c.key_id, jobs.c.queue, jobs.c.turn).where(*of_queue).order_by(*_ORDER).limit(1)
    return (await connection.execute(head)).first()


async def _set_turn(connection: AsyncConnection, job_id: str, turn: float) -> None:
    await connection.execute(update(jobs).where(jobs.c.id == job_id).values(turn=turn))


async def ahead_of(connection: AsyncConnection, job_id: str) -> tuple[int, float, float] | None:
    """Return how many jobs wait before a queued one, the seconds that they were thought to take, and its own.

    None when the job is not queued.
    """
    own = select(jobs.c.key_id, jobs.c.queue, jobs.c.turn, jobs.c.priority, jobs.c.id, jobs.c.predicted_s).where(
        _QUEUED, jobs.c.id == job_id
    )
    job = (await connection.execute(own)).first()
    if job is None:
        return None
    turn, turn_id = job.turn, job.id
    siblings = (_QUEUED, jobs.c.key_id == job.key_id, jobs.c.queue == job.queue)
    is_other = or_(jobs.c.priority < job.priority, jobs.c.priority > job.priority)
    others = select(jobs.c.id).where(*siblings, is_other).limit(1)
    if (await connection.execute(others)).first():
        # The job will take its key's turn of its rank, whichever job has it now.
        is_before = or_(jobs.c.priority < job.priority, (jobs.c.priority == job.priority) & (jobs.c.id < job.id))
        ranked = select(func.count()).select_from(jobs).where(*siblings, is_before)
        rank = (await connection.execute(ranked)).scalar_one()
        slot = select(jobs.c.turn, jobs.c.id).where(*siblings).order_by(*_ORDER).offset(rank).limit(1)
        turn, turn_id = (await connection.execute(slot)).one()
    is_earlier = tuple_(jobs.c.turn, jobs.c.id) < tuple_(turn, turn_id)
    count, seconds = await _load(connection, jobs.c.queue == job.queue, is_earlier)
    if job.queue == LOW:
        ordinary, its_seconds = await _load(connection, jobs.c.queue == ORDINARY)
        count, seconds = count + ordinary, seconds + its_seconds
    return count, seconds, job.predicted_s


async def _load(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> tuple[int, float]:
    """Return how many queued jobs there are, and the seconds that they were thought to take together."""
    wanted = select(func.count(), func.coalesce(func.sum(jobs.c.predicted_s), 0.0)).where(_QUEUED, *conditions)
    count, seconds = (await connection.execute(wanted)).one()
    return int(count), float(seconds)


async def seconds_queued(connection: AsyncConnection) -> float:
    """Return the seconds that all waiting jobs were thought to take together."""
    loads = [await _load(connection, jobs.c.queue == queue) for queue in (ORDINARY, LOW)]
    return sum(seconds for _, seconds in loads)
