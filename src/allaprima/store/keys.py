"""API keys in the database. The database stores a hash of each key, not the key."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError

from allaprima.domain.accounts import ApiKey, KeyRotation, LimitPeriod, SpendLimit, period_start
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import KeyNotFound
from allaprima.store import dialect
from allaprima.store.database import Repository, reads, writes
from allaprima.store.idempotency import claim_resource, release_claim
from allaprima.store.rows import check_numbers, readable
from allaprima.store.schema import api_keys, usage_buckets

_NUMBERS = (
    "created_at",
    "revoked_at",
    "updated_at",
    "limit_credits",
    "requests_per_minute",
    "safety_threshold",
    "spent",
    "held",
)


def _replayed_key(connection: Connection, key_id: str) -> ApiKey:
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))).first()
    if row is None:
        raise KeyNotFound("the key that the first request with this idempotency key created has been revoked")
    return _key(row)


def _is_taken(connection: Connection, prefix: str, key_hash: str) -> bool:
    taken = select(api_keys.c.id).where((api_keys.c.prefix == prefix) | (api_keys.c.hash == key_hash))
    return connection.execute(taken).first() is not None


def _key(row: Row[Any]) -> ApiKey:
    check_numbers(row, _NUMBERS)
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
    """Return the column values of the members that `change` can change."""
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


# This statement runs at every request, so it is built once.
_FIND_VALID = select(api_keys).where(
    api_keys.c.hash == bindparam("hash"), api_keys.c.revoked_at.is_(None), api_keys.c.is_disabled == 0
)


_insert_new = dialect.upsert(api_keys, lambda insert_: insert_.on_conflict_do_nothing().returning(api_keys.c.id))


class KeyRepository(Repository):
    """Creates, finds, changes and revokes API keys."""

    @writes
    def add(
        self, connection: Connection, key: ApiKey, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, bool] | None:
        """Store a new key; return it and True. For a replayed request return the key of the first request, and False.

        Returns None, and stores nothing, when the prefix or the hash is taken. Raises `IdempotencyMismatch`, and
        `KeyNotFound` when the key that the first request created has been revoked.
        """
        if claim and (key_id := claim_resource(connection, key.account_id, claim, key.id, key.created_at)):
            return _replayed_key(connection, key_id), False
        values = {
            "id": key.id,
            "account_id": key.account_id,
            "prefix": key.prefix,
            "hash": key_hash,
            "created_at": key.created_at,
            "is_management": int(key.is_management),
            "period_start": period_start(key.limit.period, key.created_at) if key.limit else 0.0,
        }
        if connection.execute(_insert_new(connection), values | _values(key)).first() is None:
            if claim:
                release_claim(connection, key.account_id, claim)
            return None
        return key, True

    @reads
    def count(self, connection: Connection) -> int:
        """Return the number of keys, revoked ones included."""
        return connection.execute(select(func.count()).select_from(api_keys)).scalar_one()

    @reads
    def all(self, connection: Connection, account_id: str | None = None) -> list[ApiKey]:
        """Return all keys, of one account if `account_id` is set, oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if account_id is not None:
            query = query.where(api_keys.c.account_id == account_id)
        return list(readable(connection.execute(query), _key))

    @reads
    def find_valid(self, connection: Connection, key_hash: str) -> ApiKey | None:
        """Return the key with a hash; None when it is unknown, revoked or disabled."""
        return next(readable(connection.execute(_FIND_VALID, {"hash": key_hash}), _key), None)

    @reads
    def find(self, connection: Connection, prefix: str, account_id: str | None = None) -> ApiKey | None:
        """Return the unrevoked key with a prefix; None if there is none. account_id: only a key of this account."""
        return _find(connection, prefix, account_id)

    @writes
    def change(
        self, connection: Connection, account_id: str, prefix: str, changes: Mapping[str, Any], now: float
    ) -> ApiKey | None:
        """Change members of a `KeySpec` and return the updated key; None when the account has no such unrevoked key.

        The credits that count against the key's spend limit are summed again from the usage of the limit's period.
        """
        found = _find(connection, prefix, account_id, is_locked=True)
        if found is None:
            return None
        key = replace(found, **changes, updated_at=now)
        start = period_start(key.limit.period, key.updated_at) if key.limit else 0.0
        spent = select(func.coalesce(dialect.Total(usage_buckets.c.credits), 0)).where(
            usage_buckets.c.account_id == key.account_id,
            usage_buckets.c.key_id == key.id,
            usage_buckets.c.start >= start,
        )
        counted = {"period_start": start, "spent": connection.execute(spent).scalar_one()}
        connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(**_values(key), **counted))
        return key

    @writes
    def rotate(
        self, connection: Connection, rotation: KeyRotation, key_hash: str, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, bool] | None:
        """Replace the secret of a key: its row gets a new prefix and hash. Return the key and True.

        A replayed request changes nothing and returns the key and False. Returns None, and changes nothing, when the
        new prefix or hash is taken. Raises `KeyNotFound` when the account has no unrevoked key with the prefix, and
        `IdempotencyMismatch`.
        """
        own = (
            api_keys.c.prefix == rotation.prefix,
            api_keys.c.account_id == rotation.account_id,
            api_keys.c.revoked_at.is_(None),
        )
        found = connection.execute(select(api_keys.c.id).where(*own)).scalar()
        if claim and (
            key_id := claim_resource(connection, rotation.account_id, claim, found or rotation.prefix, rotation.at)
        ):
            return _replayed_key(connection, key_id), False
        if _is_taken(connection, rotation.new_prefix, key_hash):
            if claim:
                release_claim(connection, rotation.account_id, claim)
            return None
        values = {"prefix": rotation.new_prefix, "hash": key_hash, "updated_at": rotation.at}
        changed = update(api_keys).where(*own).values(**values).returning(api_keys)
        try:
            with connection.begin_nested():
                row = connection.execute(changed).first()
        except IntegrityError:
            # Another transaction has stored the prefix or the hash since the check.
            if claim:
                release_claim(connection, rotation.account_id, claim)
            return None
        if row is None:
            raise KeyNotFound(f"there is no valid key with the prefix {rotation.prefix[:40]}")
        return _key(row), True

    @writes
    def revoke(self, connection: Connection, prefix: str, now: float, account_id: str | None = None) -> bool:
        """Revoke the key with a prefix, only of the account if `account_id` is set; False when there is no such key."""
        statement = update(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        if account_id is not None:
            statement = statement.where(api_keys.c.account_id == account_id)
        # The lock ends the admissions that have read the key as valid; an update alone does not wait for them.
        connection.execute(select(api_keys.c.id).where(api_keys.c.prefix == prefix).with_for_update()).all()
        return connection.execute(statement.values(revoked_at=now)).rowcount == 1


def _find(connection: Connection, prefix: str, account_id: str | None, *, is_locked: bool = False) -> ApiKey | None:
    query = select(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
    if is_locked:
        # Stronger than the lock of an update, which does not wait for admissions that have read the key as valid.
        query = query.with_for_update()
    if account_id is not None:
        query = query.where(api_keys.c.account_id == account_id)
    return next(readable(connection.execute(query), _key), None)
