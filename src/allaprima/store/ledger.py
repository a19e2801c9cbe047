"""An account's ledger, read: what was paid in and what was charged, newest first."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from allaprima.domain.billing import EntryDirection, EntryType
from allaprima.store.database import Database, reads
from allaprima.store.schema import ledger


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger."""

    id: str
    created_at: float
    direction: EntryDirection
    type: EntryType
    #: Never negative.
    credits: int
    model: str | None
    reference_id: str | None
    images: int | None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which rows of a ledger are asked for; None: any."""

    #: From this time on, unix seconds.
    since: float | None = None
    #: Before this time.
    until: float | None = None
    direction: EntryDirection | None = None
    type: EntryType | None = None


class Ledger:
    """Reads the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def entries(
        self, connection: Connection, account_id: str, wanted: EntryFilter, before: str | None, limit: int
    ) -> list[Entry]:
        """Return rows of an account's ledger, newest first; before: only those older than this id."""
        columns = [ledger.c[name] for name in Entry.__dataclass_fields__]
        query = select(*columns).where(ledger.c.account_id == account_id)
        if wanted.since is not None:
            query = query.where(ledger.c.created_at >= wanted.since)
        if wanted.until is not None:
            query = query.where(ledger.c.created_at < wanted.until)
        if wanted.direction is not None:
            query = query.where(ledger.c.direction == wanted.direction.value)
        if wanted.type is not None:
            query = query.where(ledger.c.type == wanted.type.value)
        if before is not None:
            query = query.where(ledger.c.id < before)
        rows = connection.execute(query.order_by(ledger.c.id.desc()).limit(limit))
        return [
            Entry(row.id, row.created_at, EntryDirection(row.direction), EntryType(row.type), *tuple(row)[4:])
            for row in rows
        ]
