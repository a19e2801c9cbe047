"""Accounts in the database."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from allaprima.domain.accounts import Account
from allaprima.domain.billing import LedgerEntry
from allaprima.errors import StoreError
from allaprima.store import dialect
from allaprima.store.database import Repository, reads, writes
from allaprima.store.ledger import post_entry
from allaprima.store.rows import UNREADABLE, check_numbers, readable
from allaprima.store.schema import accounts

_NAMES = tuple(field.name for field in fields(Account))
_COLUMNS = tuple(accounts.c[name] for name in _NAMES)


class AccountRepository(Repository):
    """Creates, reads and credits accounts."""

    @writes
    def add(self, connection: Connection, account: Account) -> bool:
        """Store a new account. Returns False, and stores nothing, if another account has the name."""
        # A unique index would refuse data folders of earlier versions.
        dialect.lock(connection, f"account {account.name}")
        if connection.execute(select(accounts.c.id).where(accounts.c.name == account.name)).first() is not None:
            return False
        _insert(connection, account)
        return True

    @writes
    def first(self, connection: Connection, new: Account) -> Account:
        """Return the oldest account; store and return `new` if the database has none."""
        dialect.lock(connection, "first account")
        row = connection.execute(select(*_COLUMNS).order_by(accounts.c.created_at, accounts.c.id).limit(1)).first()
        if row is not None:
            return _account(row)
        _insert(connection, new)
        return new

    @reads
    def all(self, connection: Connection) -> list[Account]:
        """Return every account, oldest first."""
        rows = connection.execute(select(*_COLUMNS).order_by(accounts.c.created_at, accounts.c.id))
        return list(readable(rows, _account))

    @reads
    def get(self, connection: Connection, account_id: str) -> Account:
        """Return an account. Raises `StoreError` for an unknown id, since callers pass ids of stored accounts."""
        return _find(connection, account_id)

    @writes
    def post(self, connection: Connection, account_id: str, entry: LedgerEntry) -> Account:
        """Write a ledger entry, apply it to the balance, and return the updated account."""
        post_entry(connection, account_id, entry)
        return _find(connection, account_id)


def _insert(connection: Connection, account: Account) -> None:
    values = {"id": account.id, "name": account.name, "created_at": account.created_at}
    connection.execute(insert(accounts).values(**values))


def _find(connection: Connection, account_id: str) -> Account:
    row = connection.execute(select(*_COLUMNS).where(accounts.c.id == account_id)).first()
    if row is None:
        raise StoreError(f"the account {account_id} is missing in the database")
    try:
        return _account(row)
    except UNREADABLE as exc:
        raise StoreError(f"the account {account_id} is damaged in the database: {exc}") from exc


def _account(row: Row[Any]) -> Account:
    check_numbers(row, ("created_at", "balance", "held"))
    return Account(**{name: getattr(row, name) for name in _NAMES})
