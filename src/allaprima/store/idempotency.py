"""What a client's idempotency key stands for: kept in the transaction that made it, so that of any number of equal
requests exactly one makes something.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from allaprima.errors import IdempotencyMismatch
from allaprima.store.database import Database, writes
from allaprima.store.schema import idempotency

#: Seconds that a key is remembered.
KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A client's word that a request is one with another of the same words."""

    key: str
    #: Hash of path and body.
    fingerprint: str


def find_claim(connection: Connection, account_id: str, claim: Claim, now: float) -> str | None:
    """Return the id of what an equal request made. Raises `IdempotencyMismatch` when the request was another."""
    wanted = select(idempotency.c.fingerprint, idempotency.c.made_id).where(
        idempotency.c.account_id == account_id,
        idempotency.c.key == claim.key,
        idempotency.c.created_at > now - KEPT_S,
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    if row.fingerprint != claim.fingerprint:
        raise IdempotencyMismatch
    return str(row.made_id)


def keep_claim(connection: Connection, account_id: str, claim: Claim, made_id: str, now: float) -> None:
    """Remember what a request made, and forget what the same key stood for long ago."""
    own = idempotency.c.account_id == account_id, idempotency.c.key == claim.key
    connection.execute(delete(idempotency).where(*own))
    values = {"account_id": account_id, "key": claim.key, "fingerprint": claim.fingerprint, "made_id": made_id}
    connection.execute(insert(idempotency).values(**values, created_at=now))


class Claims:
    """All that is remembered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def forget_old(self, connection: Connection, now: float) -> None:
        """Forget what was remembered long enough."""
        connection.execute(delete(idempotency).where(idempotency.c.created_at <= now - KEPT_S))
