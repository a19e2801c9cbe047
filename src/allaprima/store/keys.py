"""Statements about accounts and keys."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from allaprima.domain.accounts import LimitPeriod, period_start
from allaprima.domain.billing import EntryDirection, EntryType
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import KeyNotFound
from allaprima.store import charges
from allaprima.store.database import Database, reads, writes
from allaprima.store.idempotency import find_claim, keep_claim
from allaprima.store.schema import accounts, keys, usage_slots


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays."""

    id: str
    name: str
    created_at: float
    #: In credits.
    balance: int = 0
    #: Of those, held back for jobs that are not finished.
    held: int = 0


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """The most that a key may be charged in a window."""

    retention: LimitPeriod
    credits: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key, without the key."""

    id: str
    account_id: str
    name: str | None
    #: The 8 characters after `ap_`.
    prefix: str
    created_at: float
    #: None while the key is good.
    revoked_at: float | None = None
    updated_at: float = 0.0
    #: It works on keys and reads the charges, and paints nothing.
    is_management: bool = False
    is_disabled: bool = False
    #: None: all of them.
    scopes: tuple[str, ...] | None = None
    limit: SpendLimit | None = None
    #: None: the server's.
    requests_per_minute: int | None = None
    #: None: the server's.
    safety_threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key that takes the place of another."""

    id: str
    account_id: str
    #: Of the key that goes, and of the one that comes.
    prefix: str
    new_prefix: str
    at: float


def _is_taken(connection: Connection, prefix: str, key_hash: str) -> bool:
    taken = select(keys.c.id).where((keys.c.prefix == prefix) | (keys.c.hash == key_hash))
    return connection.execute(taken).first() is not None


def _key(row: Row[Any]) -> KeyRow:
    limit = None
    if row.limit_retention is not None and row.limit_credits is not None:
        limit = SpendLimit(LimitPeriod(row.limit_retention), row.limit_credits)
    return KeyRow(
        id=row.id,
        account_id=row.account_id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        updated_at=row.updated_at or row.created_at,
        is_management=bool(row.is_management),
        is_disabled=bool(row.is_disabled),
        scopes=None if row.scopes is None else tuple(row.scopes),
        limit=limit,
        requests_per_minute=row.requests_per_minute,
        safety_threshold=row.safety_threshold,
    )


_ACCOUNT_COLUMNS = tuple(accounts.c[name] for name in Account.__dataclass_fields__)


def _account(connection: Connection, account_id: str) -> Account:
    return Account(*connection.execute(select(*_ACCOUNT_COLUMNS).where(accounts.c.id == account_id)).one())


def _values(key: KeyRow) -> dict[str, Any]:
    """What of a key may change."""
    return {
        "name": key.name,
        "updated_at": key.updated_at,
        "is_disabled": int(key.is_disabled),
        "scopes": None if key.scopes is None else list(key.scopes),
        "limit_retention": key.limit.retention.value if key.limit else None,
        "limit_credits": key.limit.credits if key.limit else None,
        "requests_per_minute": key.requests_per_minute,
        "safety_threshold": key.safety_threshold,
    }


# Put together once, for it is asked at every request.
_FIND_GOOD = select(keys).where(keys.c.hash == bindparam("hash"), keys.c.revoked_at.is_(None), keys.c.is_disabled == 0)


class Accounts:
    """Accounts in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def add(self, connection: Connection, account: Account) -> None:
        """Store a new account."""
        values = {"id": account.id, "name": account.name, "created_at": account.created_at}
        connection.execute(insert(accounts).values(**values))

    @reads
    def all(self, connection: Connection) -> list[Account]:
        """Return every account, oldest first."""
        rows = connection.execute(select(*_ACCOUNT_COLUMNS).order_by(accounts.c.created_at, accounts.c.id))
        return [Account(*row) for row in rows]

    @reads
    def get(self, connection: Connection, account_id: str) -> Account:
        """Return an account that is there."""
        return _account(connection, account_id)

    @writes
    def credit(
        self, connection: Connection, account_id: str, kind: EntryType, credits_: int, note: str | None, now: float
    ) -> Account:
        """Pay in, or out where `credits_` is below zero; return the account as it is then."""
        direction = EntryDirection.TOPUP if credits_ >= 0 else EntryDirection.CHARGE
        charges.enter(connection, account_id, direction, kind, abs(credits_), now, note=note)
        return _account(connection, account_id)


class Keys:
    """Keys in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def add(
        self, connection: Connection, key: KeyRow, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> str | None:
        """Store a new key and return its id, or the id of what an equal request made before.

        Returns None, and stores nothing, when its prefix or hash is taken. Raises `IdempotencyMismatch`.
        """
        if claim and (made := find_claim(connection, key.account_id, claim, key.created_at)):
            return made
        if _is_taken(connection, key.prefix, key_hash):
            return None
        connection.execute(
            insert(keys).values(
                id=key.id,
                account_id=key.account_id,
                prefix=key.prefix,
                hash=key_hash,
                created_at=key.created_at,
                is_management=int(key.is_management),
                period_start=period_start(key.limit.retention, key.created_at) if key.limit else 0.0,
                **_values(key),
            )
        )
        if claim:
            keep_claim(connection, key.account_id, claim, key.id, key.created_at)
        return key.id

    @reads
    def count(self, connection: Connection) -> int:
        """Return how many keys there ever were."""
        return connection.execute(select(func.count()).select_from(keys)).scalar_one()

    @reads
    def all(self, connection: Connection, account_id: str | None = None) -> list[KeyRow]:
        """Return every key, or every one of an account, oldest first."""
        wanted = select(keys).order_by(keys.c.created_at, keys.c.id)
        if account_id is not None:
            wanted = wanted.where(keys.c.account_id == account_id)
        return [_key(row) for row in connection.execute(wanted)]

    @reads
    def find_good(self, connection: Connection, key_hash: str) -> KeyRow | None:
        """Return the key with that hash unless it is unknown, revoked or disabled."""
        row = connection.execute(_FIND_GOOD, {"hash": key_hash}).first()
        return _key(row) if row else None

    @reads
    def find(self, connection: Connection, prefix: str, account_id: str | None = None) -> KeyRow | None:
        """Return the key with that prefix, of that account if one is named, unless it is revoked."""
        wanted = select(keys).where(keys.c.prefix == prefix, keys.c.revoked_at.is_(None))
        if account_id is not None:
            wanted = wanted.where(keys.c.account_id == account_id)
        row = connection.execute(wanted).first()
        return _key(row) if row else None

    @writes
    def update(self, connection: Connection, key: KeyRow) -> None:
        """Store what may change of a key. What a new limit counts is summed anew from the charges."""
        start = period_start(key.limit.retention, key.updated_at) if key.limit else 0.0
        spent = select(func.coalesce(func.sum(usage_slots.c.credits), 0)).where(
            usage_slots.c.account_id == key.account_id,
            usage_slots.c.key_id == key.id,
            usage_slots.c.slot >= start,
        )
        counted = {"period_start": start, "spent": connection.execute(spent).scalar_one()}
        connection.execute(update(keys).where(keys.c.id == key.id).values(**_values(key), **counted))

    @writes
    def rotate(
        self, connection: Connection, rotation: Rotation, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> str | None:
        """Let another key stand for the same row; return the rotation's id, or that of what an equal request made.

        Returns None, and changes nothing, when the new prefix or hash is taken. Raises `KeyNotFound` where no good key
        of the account has the prefix, or `IdempotencyMismatch`.
        """
        if claim and (made := find_claim(connection, rotation.account_id, claim, rotation.at)):
            return made
        if _is_taken(connection, rotation.new_prefix, key_hash):
            return None
        changed = update(keys).where(
            keys.c.prefix == rotation.prefix, keys.c.account_id == rotation.account_id, keys.c.revoked_at.is_(None)
        )
        values = {"prefix": rotation.new_prefix, "hash": key_hash, "updated_at": rotation.at}
        if connection.execute(changed.values(**values)).rowcount != 1:
            raise KeyNotFound(f"there is no good key with the prefix {rotation.prefix[:40]}")
        if claim:
            keep_claim(connection, rotation.account_id, claim, rotation.id, rotation.at)
        return rotation.id

    @writes
    def revoke(self, connection: Connection, prefix: str, now: float, account_id: str | None = None) -> bool:
        """Revoke the key with that prefix, of that account if one is named; True when it was good until now."""
        wanted = update(keys).where(keys.c.prefix == prefix, keys.c.revoked_at.is_(None))
        if account_id is not None:
            wanted = wanted.where(keys.c.account_id == account_id)
        return connection.execute(wanted.values(revoked_at=now)).rowcount == 1
