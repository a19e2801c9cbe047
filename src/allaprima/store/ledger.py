"""An account's ledger: its top-ups and its charges."""

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from allaprima.domain.billing import EntryDirection, EntryType, LedgerEntry, LedgerFilter
from allaprima.store.database import Repository, reads
from allaprima.store.rows import check_numbers, readable
from allaprima.store.schema import accounts, ledger

_NAMES = tuple(field.name for field in fields(LedgerEntry))
# Built once, since they run for every job. Parameters that are not columns start with an underscore.
_INSERT_ENTRY = insert(ledger)
_CHANGE_BALANCE = update(accounts).where(accounts.c.id == bindparam("_account_id"))
_CHANGE_BALANCE = _CHANGE_BALANCE.values(balance=accounts.c.balance + bindparam("_change"))


class LedgerRepository(Repository):
    """Reads the ledger; `post_entry` writes it."""

    @reads
    def entries(
        self, connection: Connection, account_id: str, wanted: LedgerFilter, before: str | None, limit: int
    ) -> list[LedgerEntry]:
        """Return an account's ledger entries, newest first, at most `limit`.

        before: only entries older than the entry with this id.
        """
        query = select(*(ledger.c[name] for name in _NAMES)).where(ledger.c.account_id == account_id)
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
        return list(readable(connection.execute(query.order_by(ledger.c.id.desc()).limit(limit)), _entry))


def _entry(row: Row[Any]) -> LedgerEntry:
    check_numbers(row, ("created_at", "credits", "images"))
    values = {name: getattr(row, name) for name in _NAMES}
    return LedgerEntry(**values | {"direction": EntryDirection(row.direction), "type": EntryType(row.type)})


def post_entry(connection: Connection, account_id: str, entry: LedgerEntry) -> None:
    """Write a ledger entry and apply it to the account's balance."""
    values = asdict(entry) | {"direction": entry.direction.value, "type": entry.type.value, "account_id": account_id}
    connection.execute(_INSERT_ENTRY, values)
    if entry.credits:
        change = entry.credits if entry.direction == EntryDirection.TOPUP else -entry.credits
        connection.execute(_CHANGE_BALANCE, {"_account_id": account_id, "_change": change})
