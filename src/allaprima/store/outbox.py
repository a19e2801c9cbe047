"""The outbox of webhooks: written in the transaction that ends a job, emptied by `service.webhooks`."""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from uuid_utils import uuid7

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobState
from allaprima.store.database import Database, reads, writes
from allaprima.store.idempotency import find_claim, keep_claim
from allaprima.store.schema import accounts, deliveries, webhook_endpoints

#: Characters of an error that are kept.
MAX_ERROR = 500
#: Seconds for which a delivery that is over can be looked at in the database.
KEPT_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an account's webhooks go."""

    id: str
    account_id: str
    url: str
    created_at: float
    #: None while it is good.
    disabled_at: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that is to be sent now."""

    #: The same on every try.
    id: str
    account_id: str
    endpoint_id: str
    url: str
    job_id: str
    #: Such as `job.succeeded`.
    event: str
    created_at: float
    #: Tries before this one.
    attempt: int
    #: Those that sign: the account's own, and the one before while it is still good.
    secrets: tuple[str, ...]


# Put together once, for both are asked at every job's end.
_OPEN = (webhook_endpoints.c.id == deliveries.c.endpoint_id) & webhook_endpoints.c.disabled_at.is_(None)
_DUE = (
    select(deliveries, webhook_endpoints.c.url)
    .join(webhook_endpoints, _OPEN)
    .where(deliveries.c.next_at <= bindparam("now"))
    .order_by(deliveries.c.next_at)
    .limit(bindparam("most"))
)
_NEXT_DUE = (
    select(deliveries.c.next_at)
    .join(webhook_endpoints, _OPEN)
    .where(deliveries.c.next_at.is_not(None))
    .order_by(deliveries.c.next_at)
    .limit(1)
)


def announce(connection: Connection, job: Job, state: JobState, now: float) -> None:
    """Put the webhook that tells of a job's end into the outbox, unless its endpoint was disabled meanwhile."""
    assert job.terms.webhook_url is not None  # it asked for one
    endpoint = _endpoint(connection, job.account_id, job.terms.webhook_url)
    if endpoint is None or endpoint.disabled_at is not None:
        return
    connection.execute(
        insert(deliveries).values(
            id=f"msg_{job.id}",
            account_id=job.account_id,
            endpoint_id=endpoint.id,
            job_id=job.id,
            event=f"job.{state.value}",
            created_at=now,
            next_at=now,
        )
    )


class Outbox:
    """Endpoints, their secrets, and what is to be sent to them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def endpoints(self, connection: Connection, account_id: str) -> list[Endpoint]:
        """Return an account's endpoints, oldest first."""
        wanted = select(webhook_endpoints).where(webhook_endpoints.c.account_id == account_id)
        rows = connection.execute(wanted.order_by(webhook_endpoints.c.created_at, webhook_endpoints.c.id))
        return [Endpoint(*row) for row in rows]

    async def ensure(self, account_id: str, url: str, now: float) -> Endpoint:
        """Return the account's endpoint at that URL, new if need be."""
        return await self._find(account_id, url) or await self._add(account_id, url, now)

    @reads
    def _find(self, connection: Connection, account_id: str, url: str) -> Endpoint | None:
        return _endpoint(connection, account_id, url)

    @writes
    def _add(self, connection: Connection, account_id: str, url: str, now: float) -> Endpoint:
        if before := _endpoint(connection, account_id, url):
            return before
        made = Endpoint(str(uuid7()), account_id, url, now, None)
        values = {"id": made.id, "account_id": account_id, "url": url, "created_at": now}
        connection.execute(insert(webhook_endpoints).values(**values))
        return made

    @writes
    def forget(self, connection: Connection, account_id: str, endpoint_id: str) -> bool:
        """Remove an endpoint and what was to be sent there; True when it was the account's."""
        own = webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.account_id == account_id
        if not connection.execute(select(webhook_endpoints.c.id).where(*own)).first():
            return False
        connection.execute(delete(deliveries).where(deliveries.c.endpoint_id == endpoint_id))
        connection.execute(delete(webhook_endpoints).where(*own))
        return True

    @reads
    def secrets(self, connection: Connection, account_id: str, now: float) -> tuple[str, ...]:
        """Return what signs an account's webhooks, the newest first; none before the first is set."""
        return _secrets(connection, account_id, now)

    @writes
    def set_first_secret(self, connection: Connection, account_id: str, secret: str) -> None:
        """Let a secret sign, where there is none."""
        without = accounts.c.id == account_id, accounts.c.webhook_secret.is_(None)
        connection.execute(update(accounts).where(*without).values(webhook_secret=secret))

    @writes
    def rotate_secret(
        self,
        connection: Connection,
        account_id: str,
        secret: str,
        old_until: float,
        now: float,
        claim: IdempotencyClaim | None = None,
    ) -> None:
        """Let a new secret sign; the one before signs too until `old_until`. Nothing, where an equal request did that.

        Raises `IdempotencyMismatch`.
        """
        if claim and find_claim(connection, account_id, claim, now):
            return
        changed = {"old_webhook_secret": accounts.c.webhook_secret, "old_webhook_secret_until": old_until}
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**changed, webhook_secret=secret))
        if claim:
            keep_claim(connection, account_id, claim, account_id, now)

    @writes
    def forget_old(self, connection: Connection, now: float) -> None:
        """Forget what was delivered, or given up, long ago."""
        is_over = deliveries.c.next_at.is_(None), deliveries.c.created_at < now - KEPT_S
        connection.execute(delete(deliveries).where(*is_over))

    @reads
    def due(self, connection: Connection, now: float, limit: int) -> list[Delivery]:
        """Return what is to be sent now, the longest due first."""
        return [
            Delivery(
                row.id,
                row.account_id,
                row.endpoint_id,
                row.url,
                row.job_id,
                row.event,
                row.created_at,
                row.attempt,
                _secrets(connection, row.account_id, now),
            )
            for row in connection.execute(_DUE, {"now": now, "most": limit}).all()
        ]

    @reads
    def next_due(self, connection: Connection) -> float | None:
        """Return when something is to be sent next."""
        due: float | None = connection.execute(_NEXT_DUE).scalar()
        return due

    @writes
    def delivered(self, connection: Connection, delivery: Delivery, now: float) -> None:
        """Note that it arrived."""
        _note(connection, delivery, delivered_at=now, next_at=None, last_error=None)

    @writes
    def failed(self, connection: Connection, delivery: Delivery, error: str, next_at: float | None) -> None:
        """Note that it did not arrive, and when to try again; None: never."""
        _note(connection, delivery, next_at=next_at, last_error=error[:MAX_ERROR])

    @writes
    def disable(self, connection: Connection, delivery: Delivery, error: str, now: float) -> None:
        """Send nothing more to a delivery's endpoint."""
        endpoint_id = delivery.endpoint_id
        _note(connection, delivery, next_at=None, last_error=error[:MAX_ERROR])
        connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id).values(disabled_at=now)
        )
        connection.execute(
            update(deliveries)
            .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.next_at.is_not(None))
            .values(next_at=None)
        )


def _endpoint(connection: Connection, account_id: str, url: str) -> Endpoint | None:
    wanted = select(webhook_endpoints).where(
        webhook_endpoints.c.account_id == account_id, webhook_endpoints.c.url == url
    )
    row = connection.execute(wanted).first()
    return Endpoint(*row) if row else None


def _note(connection: Connection, delivery: Delivery, **values: object) -> None:
    noted = update(deliveries).where(deliveries.c.id == delivery.id)
    connection.execute(noted.values(attempt=delivery.attempt + 1, **values))


def _secrets(connection: Connection, account_id: str, now: float) -> tuple[str, ...]:
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one()
    found = [row.webhook_secret] if row.webhook_secret else []
    if row.old_webhook_secret and (row.old_webhook_secret_until or 0) > now:
        found.append(row.old_webhook_secret)
    return tuple(found)
