"""The order in which jobs are leased: fair between keys, by priority within a key.

Start-time fair queueing (Goyal, Vin and Cheng 1997): a job's turn is the later of the queue's virtual time and its
key's last turn, plus the estimated seconds of the job. Jobs run in the order of their turns. A key that sends a
thousand jobs gets turns far in the future, and the single job of another key gets a turn between the first of them.
Turns belong to a key, not to a job: the key's next turn is used by its job of highest priority, then by its oldest one,
so a high priority never overtakes another key. Jobs of the low queue run only while the ordinary queue is empty.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, bindparam, func, literal_column, or_, select, tuple_, union_all, update

from allaprima.domain.jobs import JobState, Priority, QueueLoad
from allaprima.store import dialect
from allaprima.store.rows import JOB_COLUMNS
from allaprima.store.schema import jobs

#: Values of the column `queue` of the jobs table.
QUEUES = ORDINARY, LOW = 0, 1
#: A string that sorts after every job id.
NEWEST = "~"
# Literals, not parameters: SQLite uses a partial index only if the query's condition contains the index's condition.
QUEUED, RUNNING = (jobs.c.state == literal_column(f"'{state.value}'") for state in (JobState.QUEUED, JobState.RUNNING))
_ORDER = (jobs.c.queue, jobs.c.turn, jobs.c.id)

# Statements that run for every job are built once. Each reads one queue, so that SQLite reads it in index order.
_OF_QUEUE = (QUEUED, jobs.c.queue == bindparam("queue"))
_OF_KEY = (*_OF_QUEUE, jobs.c.key_id == bindparam("key_id"))
_IS_FREE = or_(jobs.c.waits_at.is_(None), jobs.c.waits_at == bindparam("worker_id"))
_FIRST = (
    select(jobs.c.id, jobs.c.key_id, jobs.c.queue, jobs.c.turn).where(*_OF_QUEUE, _IS_FREE).order_by(*_ORDER).limit(1)
)
_HEAD, _LOCKED_HEAD = _FIRST.with_for_update(skip_locked=True), _FIRST.with_for_update()
_MOST_URGENT = (
    select(*(*JOB_COLUMNS, jobs.c.turn))
    .where(*_OF_KEY, _IS_FREE)
    .order_by(jobs.c.priority, jobs.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
# One query for lower priorities and one for higher: in one query, SQLite would scan all jobs of the key.
_OTHER_PRIORITIES = tuple(
    select(jobs.c.id).where(*_OF_KEY, is_other).limit(1)
    for is_other in (jobs.c.priority < bindparam("priority"), jobs.c.priority > bindparam("priority"))
)
_LOAD = select(func.count(), func.coalesce(func.sum(jobs.c.predicted_s), 0.0)).where(*_OF_QUEUE)
_EARLIER = _LOAD.where(tuple_(jobs.c.turn, jobs.c.id) < tuple_(bindparam("turn"), bindparam("id")))
_COUNTS = [
    select(func.count()).select_from(jobs).where(state, jobs.c.queue == queue).scalar_subquery()
    for state in (QUEUED, RUNNING)
    for queue in QUEUES
]
_UNFINISHED = select(sum(_COUNTS[1:], _COUNTS[0]))
_UNFINISHED_UP_TO = select(func.count()).select_from(
    union_all(
        *(
            select(literal_column("1")).select_from(jobs).where(state, jobs.c.queue == queue)
            for state in (QUEUED, RUNNING)
            for queue in QUEUES
        )
    )
    .limit(bindparam("limit"))
    .subquery()
)
_COUNTS_OF_KEY = [
    select(func.count())
    .select_from(jobs)
    .where(state, jobs.c.queue == queue, jobs.c.key_id == bindparam("key_id"))
    .scalar_subquery()
    for state in (QUEUED, RUNNING)
    for queue in QUEUES
]
_UNFINISHED_OF_KEY = select(sum(_COUNTS_OF_KEY[1:], _COUNTS_OF_KEY[0]))
_VIRTUAL_TIME = func.coalesce(
    select(func.max(jobs.c.turn)).where(RUNNING, jobs.c.queue == bindparam("queue")).scalar_subquery(),
    select(func.min(jobs.c.turn)).where(*_OF_QUEUE).scalar_subquery(),
    0.0,
)
_TURNS = select(_VIRTUAL_TIME, select(func.max(jobs.c.turn)).where(*_OF_KEY).scalar_subquery())


def lane(priority: Priority) -> tuple[int, int]:
    """Return a job's queue and its rank within its key; lower ranks run first."""
    return LOW if priority == Priority.LOW else ORDINARY, int(priority != Priority.HIGH)


def count_unfinished(connection: Connection) -> int:
    """Return the number of queued and running jobs."""
    return int(connection.execute(_UNFINISHED).scalar_one())


def has_unfinished(connection: Connection, number: int) -> bool:
    """Return whether at least `number` jobs are queued or running."""
    if dialect.has_one_writer(connection):
        # SQLite counts all entries of an index faster than it reads some of them in a subquery.
        return count_unfinished(connection) >= number
    return bool(connection.execute(_UNFINISHED_UP_TO, {"limit": number}).scalar_one() >= number)


def count_of_key(connection: Connection, key_id: str) -> int:
    """Return the number of a key's queued and running jobs."""
    return int(connection.execute(_UNFINISHED_OF_KEY, {"key_id": key_id}).scalar_one())


def load(connection: Connection) -> QueueLoad:
    """Return the number of queued and unfinished jobs and the estimated seconds of the queued ones."""
    counted = [connection.execute(_LOAD, {"queue": queue}).one() for queue in QUEUES]
    queued = sum(count for count, _ in counted)
    return QueueLoad(queued, count_unfinished(connection), sum(seconds for _, seconds in counted))


def next_turn(connection: Connection, key_id: str, queue: int, predicted_s: float) -> float:
    """Return the turn of a key's new job, in seconds of virtual time."""
    now, last = connection.execute(_TURNS, {"queue": queue, "key_id": key_id}).one()
    return float(max(now, last or 0.0)) + max(predicted_s, 1e-3)


def take_next(connection: Connection, worker_id: str) -> Row[Any] | None:
    """Lock and return the row of a worker's next job, `JOB_COLUMNS` and its turn; None when no job is queued for it.

    Jobs that another transaction has locked are skipped while there are others; otherwise this waits for one, so the
    transaction must hold no lock of a job, a key or an account.
    The first turn belongs to a key, and the key's most urgent job uses it: if another job has that turn, the two jobs
    swap their turns.
    """
    first = _take_head(connection, _HEAD, worker_id)
    if first is None and not dialect.has_one_writer(connection):
        # A lease locks two jobs and takes one, so the other is worth waiting for.
        first = _take_head(connection, _LOCKED_HEAD, worker_id)
    if first is None:
        return None
    of_key = {"key_id": first.key_id, "queue": first.queue, "worker_id": worker_id}
    chosen = connection.execute(_MOST_URGENT, of_key).one()
    if chosen.id != first.id:
        _set_turn(connection, first.id, chosen.turn)
        _set_turn(connection, chosen.id, first.turn)
    return chosen


def _take_head(connection: Connection, head: Select[Any], worker_id: str) -> Row[Any] | None:
    # One query per queue: for both in one query, SQLite would sort instead of reading the index.
    heads = (connection.execute(head, {"queue": queue, "worker_id": worker_id}).first() for queue in QUEUES)
    return next(filter(None, heads), None)


def _set_turn(connection: Connection, job_id: str, turn: float) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(turn=turn))


def ahead_of(connection: Connection, job_id: str) -> tuple[int, float, float] | None:
    """Return the number of jobs ahead of a queued job, their estimated seconds, and the job's own.

    Returns None when the job is not queued.
    """
    job = connection.execute(_OWN, {"id": job_id}).first()
    if job is None:
        return None
    *values, predicted_s = job
    return *_ahead(connection, _Position(*values)), predicted_s


def ahead_of_new(
    connection: Connection, key_id: str, queue: int, priority: int, predicted_s: float
) -> tuple[int, float]:
    """Return the number of jobs that would be ahead of a key's next job, and their estimated seconds."""
    turn = next_turn(connection, key_id, queue, predicted_s)
    return _ahead(connection, _Position(key_id, queue, priority, turn, NEWEST))


class _Position(NamedTuple):
    """The values that determine a job's position in the queue."""

    key_id: str
    queue: int
    priority: int
    turn: float
    id: str


_OWN = select(*(jobs.c[name] for name in (*_Position._fields, "predicted_s"))).where(
    QUEUED, jobs.c.id == bindparam("id")
)


def _ahead(connection: Connection, position: _Position) -> tuple[int, float]:
    turn, turn_id = position.turn, position.id
    same_key = (QUEUED, jobs.c.key_id == position.key_id, jobs.c.queue == position.queue)
    if any(connection.execute(other, position._asdict()).first() for other in _OTHER_PRIORITIES):
        # The key has jobs of several priorities, so the job runs at the key's turn of the job's rank by priority and
        # age, not at its own turn.
        is_before = or_(
            jobs.c.priority < position.priority, (jobs.c.priority == position.priority) & (jobs.c.id < position.id)
        )
        ranked = select(func.count()).select_from(jobs).where(*same_key, is_before)
        rank = connection.execute(ranked).scalar_one()
        slot = select(jobs.c.turn, jobs.c.id).where(*same_key).order_by(*_ORDER).offset(rank).limit(1)
        turn, turn_id = connection.execute(slot).first() or (turn, turn_id)
    count, seconds = connection.execute(_EARLIER, {"queue": position.queue, "turn": turn, "id": turn_id}).one()
    if position.queue == LOW:
        ordinary, its_seconds = connection.execute(_LOAD, {"queue": ORDINARY}).one()
        count, seconds = count + ordinary, seconds + its_seconds
    return count, seconds
