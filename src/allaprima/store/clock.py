"""What the data folder knows of the clock, and the stored times that a change of the clock must not affect."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from allaprima.store import dialect
from allaprima.store.database import Repository, reads, writes
from allaprima.store.schema import accounts, clock, idempotency_records, images, jobs, webhook_deliveries

#: Times at which something expires or becomes due, or from which its age is counted.
_DEADLINES = (
    jobs.c.start_by,
    images.c.expires_at,
    idempotency_records.c.created_at,
    webhook_deliveries.c.next_at,
    webhook_deliveries.c.created_at,
    accounts.c.old_webhook_secret_until,
)


@dataclass(frozen=True, slots=True)
class ClockRecord:
    """The clock of the server that ran last."""

    #: Identifies the start of the machine, since which its monotonic clock counts; None: unknown.
    boot_id: str | None
    #: The unix time at the zero of the monotonic clock.
    offset: float
    #: Sum of all changes of the clock, in whole seconds.
    shift: int


class ClockRepository(Repository):
    """The record of the clock, and the deadlines of all tables."""

    @reads
    def database_time(self, connection: Connection) -> float:
        """Return the database's unix time, in seconds."""
        return float(connection.execute(select(dialect.Now())).scalar_one())

    @reads
    def find(self, connection: Connection) -> ClockRecord | None:
        """Return the record; None for a data folder that no server has used, or whose record is damaged."""
        row = connection.execute(select(clock.c.boot_id, clock.c.offset, clock.c.shift)).first()
        is_readable = row is not None and isinstance(row.offset, float) and isinstance(row.shift, int)
        return ClockRecord(*row) if row is not None and is_readable else None

    @writes
    def save(self, connection: Connection, record: ClockRecord) -> None:
        """Replace the record."""
        _save(connection, record)

    @writes
    def shift_deadlines(self, connection: Connection, seconds: int, record: ClockRecord) -> None:
        """Move all deadlines by the seconds by which the clock was set, and replace the record."""
        for column in _DEADLINES:
            moved = {column.name: column + seconds}
            connection.execute(update(column.table).where(column.is_not(None)).values(moved))
        _save(connection, record)


def _save(connection: Connection, record: ClockRecord) -> None:
    connection.execute(delete(clock))
    connection.execute(insert(clock).values(boot_id=record.boot_id, offset=record.offset, shift=record.shift))
