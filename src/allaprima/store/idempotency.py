"""Idempotency records: which resource a request with an idempotency key created.

A record is written in the transaction that creates the resource, so a request and its replays create one resource.
"""

from sqlalchemy import Connection, delete, insert, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch
from allaprima.store.database import Repository, writes
from allaprima.store.schema import idempotency_records as records

#: Seconds for which a record is valid.
RETENTION_S = 86_400.0


def find_resource(connection: Connection, account_id: str, claim: IdempotencyClaim, now: float) -> str | None:
    """Return the id of the resource that an earlier request with the same key created; None if there is none.

    Raises `IdempotencyMismatch` when the earlier request had another path or body.
    """
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


def record_resource(
    connection: Connection, account_id: str, claim: IdempotencyClaim, resource_id: str, now: float
) -> None:
    """Record the resource that a request created, replacing an expired record of the same key."""
    own = records.c.account_id == account_id, records.c.key == claim.key
    connection.execute(delete(records).where(*own))
    values = {"account_id": account_id, "key": claim.key, "fingerprint": claim.fingerprint, "resource_id": resource_id}
    connection.execute(insert(records).values(**values, created_at=now))


class IdempotencyRepository(Repository):
    """The idempotency records of all accounts."""

    @writes
    def remove_expired(self, connection: Connection, now: float) -> None:
        """Remove expired records."""
        connection.execute(delete(records).where(records.c.created_at <= now - RETENTION_S))
