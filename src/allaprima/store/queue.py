"""The order in which jobs are leased: fair between keys, by priority within a key.

Start-time fair queueing (Goyal, Vin and Cheng 1997): a job's turn is the later of the queue's virtual time and its
key's last turn, moved on by the seconds that the job is thought to take. So a key that sends a thousand jobs has a
thousand turns far ahead, and the one job of another key goes between the first of them. A turn is a key's, not a job's:
priority, then age, decides which of a key's jobs takes its next turn, so nobody gets ahead of another key by calling a
job urgent. Jobs of the low
queue run only while the ordinary one is empty.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, literal_column, or_, select, tuple_, update

from allaprima.request import Priority
from allaprima.store.schema import JobState, jobs

#: The queues of `schema.jobs`.
ORDINARY, LOW = 0, 1
#: After every id.
NEWEST = "~"
# Written out, not passed as a parameter: only so does SQLite see that the queue's partial indexes apply.
_QUEUED = jobs.c.state == literal_column(f"'{JobState.QUEUED.value}'")
_ORDER = (jobs.c.queue, jobs.c.turn, jobs.c.id)


def lane(priority: Priority) -> tuple[int, int]:
    """Return a job's queue, and its rank within its key: lower goes first."""
    return LOW if priority == Priority.LOW else ORDINARY, int(priority != Priority.HIGH)


@dataclass(frozen=True, slots=True)
class Load:
    """What the queue holds."""

    #: Jobs that wait, and that wait or run.
    queued: int
    unfinished: int
    #: Seconds that those which wait are thought to take together.
    queued_s: float


def count_unfinished(connection: Connection) -> int:
    """Return how many jobs wait or run."""
    # One queue at a time, as an index has them.
    kinds = (
        _QUEUED & (jobs.c.queue == ORDINARY),
        _QUEUED & (jobs.c.queue == LOW),
        jobs.c.state == JobState.RUNNING.value,
    )
    counts = [select(func.count()).select_from(jobs).where(kind).scalar_subquery() for kind in kinds]
    return int(connection.execute(select(sum(counts[1:], counts[0]))).scalar_one())


def load(connection: Connection) -> Load:
    """Return what the queue holds."""
    counted = [_load(connection, jobs.c.queue == queue) for queue in (ORDINARY, LOW)]
    queued = sum(count for count, _ in counted)
    running = select(func.count()).select_from(jobs).where(jobs.c.state == JobState.RUNNING.value)
    unfinished = queued + connection.execute(running).scalar_one()
    return Load(queued, unfinished, sum(seconds for _, seconds in counted))


def next_turn(connection: Connection, key_id: str, queue: int, predicted_s: float) -> float:
    """Return the turn of a key's new job."""
    of_queue = jobs.c.queue == queue
    running = select(func.max(jobs.c.turn)).where(jobs.c.state == JobState.RUNNING.value, of_queue)
    first = select(func.min(jobs.c.turn)).where(_QUEUED, of_queue)
    last_of_key = select(func.max(jobs.c.turn)).where(_QUEUED, jobs.c.key_id == key_id, of_queue)
    virtual_time = func.coalesce(running.scalar_subquery(), first.scalar_subquery(), 0.0)
    found = select(virtual_time, last_of_key.scalar_subquery())
    now, last = connection.execute(found).one()
    return float(max(now, last or 0.0)) + max(predicted_s, 1e-3)


def take_next(connection: Connection) -> str | None:
    """Return the id of the job whose turn it is, if any waits; its key's other jobs keep the turns that are left."""
    first = _head(connection, ORDINARY) or _head(connection, LOW)
    if first is None:
        return None
    most_urgent = (
        select(jobs.c.id, jobs.c.turn)
        .where(_QUEUED, jobs.c.key_id == first.key_id, jobs.c.queue == first.queue)
        .order_by(jobs.c.priority, jobs.c.id)
        .limit(1)
    )
    chosen = connection.execute(most_urgent).one()
    if chosen.id != first.id:
        _set_turn(connection, first.id, chosen.turn)
        _set_turn(connection, chosen.id, first.turn)
    return str(chosen.id)


def _head(connection: Connection, queue: int) -> Any:
    # One queue at a time: with both, the order would be sorted out anew instead of read off its index.
    of_queue = _QUEUED, jobs.c.queue == queue
    head = select(jobs.c.id, jobs.c.key_id, jobs.c.queue, jobs.c.turn).where(*of_queue).order_by(*_ORDER).limit(1)
    return connection.execute(head).first()


def _set_turn(connection: Connection, job_id: str, turn: float) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(turn=turn))


def ahead_of(connection: Connection, job_id: str) -> tuple[int, float, float] | None:
    """Return how many jobs wait before a queued one, the seconds that they were thought to take, and its own.

    None when the job is not queued.
    """
    own = select(*(jobs.c[name] for name in (*_Place._fields, "predicted_s"))).where(_QUEUED, jobs.c.id == job_id)
    job = connection.execute(own).first()
    if job is None:
        return None
    *place, predicted_s = job
    return *_ahead(connection, _Place(*place)), predicted_s


def ahead_of_new(
    connection: Connection, key_id: str, queue: int, priority: int, predicted_s: float
) -> tuple[int, float]:
    """Return how many jobs would wait before a key's next one, and the seconds that they were thought to take."""
    turn = next_turn(connection, key_id, queue, predicted_s)
    return _ahead(connection, _Place(key_id, queue, priority, turn, NEWEST))


class _Place(NamedTuple):
    """What a job's place in the queue hangs on."""

    key_id: str
    queue: int
    priority: int
    turn: float
    id: str


def _ahead(connection: Connection, place: _Place) -> tuple[int, float]:
    turn, turn_id = place.turn, place.id
    siblings = (_QUEUED, jobs.c.key_id == place.key_id, jobs.c.queue == place.queue)
    # One question each: with both in one, SQLite would look through all of the key's jobs.
    others = (jobs.c.priority < place.priority, jobs.c.priority > place.priority)
    if any(connection.execute(select(jobs.c.id).where(*siblings, other).limit(1)).first() for other in others):
        # The job will take its key's turn of its rank, whichever job has it now.
        is_before = or_(jobs.c.priority < place.priority, (jobs.c.priority == place.priority) & (jobs.c.id < place.id))
        ranked = select(func.count()).select_from(jobs).where(*siblings, is_before)
        rank = connection.execute(ranked).scalar_one()
        slot = select(jobs.c.turn, jobs.c.id).where(*siblings).order_by(*_ORDER).offset(rank).limit(1)
        turn, turn_id = connection.execute(slot).first() or (turn, turn_id)
    is_earlier = tuple_(jobs.c.turn, jobs.c.id) < tuple_(turn, turn_id)
    count, seconds = _load(connection, jobs.c.queue == place.queue, is_earlier)
    if place.queue == LOW:
        ordinary, its_seconds = _load(connection, jobs.c.queue == ORDINARY)
        count, seconds = count + ordinary, seconds + its_seconds
    return count, seconds


def _load(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[int, float]:
    """Return how many queued jobs there are, and the seconds that they were thought to take together."""
    wanted = select(func.count(), func.coalesce(func.sum(jobs.c.predicted_s), 0.0)).where(_QUEUED, *conditions)
    count, seconds = connection.execute(wanted).one()
    return int(count), float(seconds)
