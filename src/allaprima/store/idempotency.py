"""Idempotency records: which resource a request with an idempotency key created.

A record is written in the transaction that creates the resource, so a request and its replays create one resource.
"""

from sqlalchemy import Connection, Executable, delete, select

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch
from allaprima.store import dialect
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


def _build_claim(insert_: dialect.Insert) -> Executable:
    names = "fingerprint", "resource_id", "created_at"
    return insert_.on_conflict_do_update(
        index_elements=("account_id", "key"),
        set_={name: insert_.excluded[name] for name in names},
        where=records.c.created_at <= insert_.excluded.created_at - RETENTION_S,
    ).returning(records.c.resource_id)


_claim = dialect.upsert(records, _build_claim)


def claim_resource(
    connection: Connection, account_id: str, claim: IdempotencyClaim, resource_id: str, now: float
) -> str | None:
    """Record the resource that a request is about to create, as the first lock of its transaction; return None.

    If an earlier request with the same key created a resource, nothing is recorded and that resource's id is returned.
    A concurrent request with the same key waits until this one's transaction ends. Raises `IdempotencyMismatch` when
    the earlier request had another path or body.
    """
    values = {"account_id": account_id, "key": claim.key, "fingerprint": claim.fingerprint, "resource_id": resource_id}
    while True:
        if connection.execute(_claim(connection), values | {"created_at": now}).first() is not None:
            return None
        # The record may be removed between the two statements.
        if (found := find_resource(connection, account_id, claim, now)) is not None:
            return found


def release_claim(connection: Connection, account_id: str, claim: IdempotencyClaim) -> None:
    """Remove the record of a request that created nothing."""
    connection.execute(delete(records).where(records.c.account_id == account_id, records.c.key == claim.key))


class IdempotencyRepository(Repository):
    """The idempotency records of all accounts."""

    @writes
    def remove_expired(self, connection: Connection, now: float) -> None:
        """Remove expired records."""
        connection.execute(delete(records).where(records.c.created_at <= now - RETENTION_S))
