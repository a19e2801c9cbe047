"""Idempotency records, kept in the transaction that creates a resource, so that of equal requests exactly one does."""

from sqlalchemy import Connection, delete, insert, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch
from allaprima.store.database import Repository, writes
from allaprima.store.schema import idempotency_records as records

#: Seconds that an idempotency key is remembered.
RETENTION_S = 86_400.0


def find_resource(connection: Connection, account_id: str, claim: IdempotencyClaim, now: float) -> str | None:
    """Return the id of what an equal request created. Raises `IdempotencyMismatch` when that request was another."""
    wanted = select(records.c.fingerprint, records.c.resource_id).where(
        records.c.account_id == account_id,
        records.c.key == claim.key,
        records.c.created_at > now - RETENTION_S,
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        raise IdempotencyMismatch
    return str(row.resource_id)


def keep_resource(
    connection: Connection, account_id: str, claim: IdempotencyClaim, resource_id: str, now: float
) -> None:
    """Record what a request created, in place of an expired record of the same key."""
    own = records.c.account_id == account_id, records.c.key == claim.key
    connection.execute(delete(records).where(*own))
    values = {"account_id": account_id, "key": claim.key, "fingerprint": claim.fingerprint, "resource_id": resource_id}
    connection.execute(insert(records).values(**values, created_at=now))


class IdempotencyRepository(Repository):
    """All records."""

    @writes
    def remove_expired(self, connection: Connection, now: float) -> None:
        """Remove expired records."""
        connection.execute(delete(records).where(records.c.created_at <= now - RETENTION_S))
