"""API keys in the database. Only a hash of a key is stored."""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from allaprima.domain.accounts import ApiKey, KeyRotation, LimitPeriod, SpendLimit, period_start
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import KeyNotFound
from allaprima.store.database import Repository, reads, writes
from allaprima.store.idempotency import find_resource, keep_resource
from allaprima.store.schema import api_keys, usage_buckets


def _created_before(connection: Connection, key_id: str) -> ApiKey:
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))).first()
    if row is None:
        raise KeyNotFound("the key that an equal request created was revoked since")
    return _key(row)


def _is_taken(connection: Connection, prefix: str, key_hash: str) -> bool:
    taken = select(api_keys.c.id).where((api_keys.c.prefix == prefix) | (api_keys.c.hash == key_hash))
    return connection.execute(taken).first() is not None


def _key(row: Row[Any]) -> ApiKey:
    limit = None
    if row.limit_period is not None and row.limit_credits is not None:
        limit = SpendLimit(LimitPeriod(row.limit_period), row.limit_credits)
    return ApiKey(
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


def _values(key: ApiKey) -> dict[str, Any]:
    """Return the columns of a key that can change."""
    return {
        "name": key.name,
        "updated_at": key.updated_at,
        "is_disabled": int(key.is_disabled),
        "scopes": None if key.scopes is None else list(key.scopes),
        "limit_period": key.limit.period.value if key.limit else None,
        "limit_credits": key.limit.credits if key.limit else None,
        "requests_per_minute": key.requests_per_minute,
        "safety_threshold": key.safety_threshold,
    }


# Built once, since it runs at every request.
_FIND_VALID = select(api_keys).where(
    api_keys.c.hash == bindparam("hash"), api_keys.c.revoked_at.is_(None), api_keys.c.is_disabled == 0
)


class KeyRepository(Repository):
    """Keys, by their hash or their prefix."""

    @writes
    def add(
        self, connection: Connection, key: ApiKey, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, bool] | None:
        """Store a new key; return it and True, or what an equal request created before and False.

        Returns None, and stores nothing, when the prefix or hash is taken. Raises `IdempotencyMismatch`, or
        `KeyNotFound` when what an equal request created was revoked since.
        """
        if claim and (made := find_resource(connection, key.account_id, claim, key.created_at)):
            return _created_before(connection, made), False
        if _is_taken(connection, key.prefix, key_hash):
            return None
        connection.execute(
            insert(api_keys).values(
                id=key.id,
                account_id=key.account_id,
                prefix=key.prefix,
                hash=key_hash,
                created_at=key.created_at,
                is_management=int(key.is_management),
                period_start=period_start(key.limit.period, key.created_at) if key.limit else 0.0,
                **_values(key),
            )
        )
        if claim:
            keep_resource(connection, key.account_id, claim, key.id, key.created_at)
        return key, True

    @reads
    def count(self, connection: Connection) -> int:
        """Return the number of keys, revoked ones included."""
        return connection.execute(select(func.count()).select_from(api_keys)).scalar_one()

    @reads
    def all(self, connection: Connection, account_id: str | None = None) -> list[ApiKey]:
        """Return every key, or every one of an account, oldest first."""
        wanted = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if account_id is not None:
            wanted = wanted.where(api_keys.c.account_id == account_id)
        return [_key(row) for row in connection.execute(wanted)]

    @reads
    def find_valid(self, connection: Connection, key_hash: str) -> ApiKey | None:
        """Return the key with that hash unless it is unknown, revoked or disabled."""
        row = connection.execute(_FIND_VALID, {"hash": key_hash}).first()
        return _key(row) if row else None

    @reads
    def find(self, connection: Connection, prefix: str, account_id: str | None = None) -> ApiKey | None:
        """Return the key with that prefix, of that account if one is named, unless it is revoked."""
        wanted = select(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        if account_id is not None:
            wanted = wanted.where(api_keys.c.account_id == account_id)
        row = connection.execute(wanted).first()
        return _key(row) if row else None

    @writes
    def update(self, connection: Connection, key: ApiKey) -> None:
        """Store what may change of a key. What a new limit counts is summed from the charges."""
        start = period_start(key.limit.period, key.updated_at) if key.limit else 0.0
        spent = select(func.coalesce(func.sum(usage_buckets.c.credits), 0)).where(
            usage_buckets.c.account_id == key.account_id,
            usage_buckets.c.key_id == key.id,
            usage_buckets.c.start >= start,
        )
        counted = {"period_start": start, "spent": connection.execute(spent).scalar_one()}
        connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(**_values(key), **counted))

    @writes
    def rotate(
        self, connection: Connection, rotation: KeyRotation, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, bool] | None:
        """Replace a key under the same record; return the record and True, or False where an equal request did that.

        Returns None, and changes nothing, when the new prefix or hash is taken. Raises `KeyNotFound` where no valid key
        of the account has the prefix, or `IdempotencyMismatch`.
        """
        if claim and (made := find_resource(connection, rotation.account_id, claim, rotation.at)):
            return _created_before(connection, made), False
        if _is_taken(connection, rotation.new_prefix, key_hash):
            return None
        changed = update(api_keys).where(
            api_keys.c.prefix == rotation.prefix,
            api_keys.c.account_id == rotation.account_id,
            api_keys.c.revoked_at.is_(None),
        )
        values = {"prefix": rotation.new_prefix, "hash": key_hash, "updated_at": rotation.at}
        if connection.execute(changed.values(**values)).rowcount != 1:
            raise KeyNotFound(f"there is no valid key with the prefix {rotation.prefix[:40]}")
        row = connection.execute(select(api_keys).where(api_keys.c.prefix == rotation.new_prefix)).one()
        if claim:
            keep_resource(connection, rotation.account_id, claim, row.id, rotation.at)
        return _key(row), True

    @writes
    def revoke(self, connection: Connection, prefix: str, now: float, account_id: str | None = None) -> bool:
        """Revoke the key with that prefix, of that account if one is named; True when it was valid until now."""
        wanted = update(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        if account_id is not None:
            wanted = wanted.where(api_keys.c.account_id == account_id)
        return connection.execute(wanted.values(revoked_at=now)).rowcount == 1
