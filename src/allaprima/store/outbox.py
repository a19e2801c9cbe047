"""The outbox of webhooks. The transaction that ends a job writes a delivery; `service.webhooks` leases and sends it."""

import secrets
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, delete, func, insert, or_, select, update
from uuid_utils import uuid7

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobState
from allaprima.domain.webhooks import WebhookDelivery, WebhookEndpoint
from allaprima.store import dialect
from allaprima.store.database import Repository, reads, writes
from allaprima.store.idempotency import claim_resource
from allaprima.store.rows import check_numbers, readable
from allaprima.store.schema import accounts, webhook_deliveries, webhook_endpoints

#: Length in characters to which the stored error of a delivery is cut.
MAX_ERROR = 500
#: Seconds for which a finished delivery stays in the database.
RETENTION_S = 30 * 86_400.0
_ENDPOINT_NAMES = tuple(field.name for field in fields(WebhookEndpoint))
_ENDPOINT_COLUMNS = tuple(webhook_endpoints.c[name] for name in _ENDPOINT_NAMES)

# Statements that run at the end of every job are built once.
_OPEN = (webhook_endpoints.c.id == webhook_deliveries.c.endpoint_id) & webhook_endpoints.c.disabled_at.is_(None)
_DUE_FIRST = (webhook_deliveries.c.next_at, webhook_deliveries.c.id)
_IS_DUE = webhook_deliveries.c.next_at <= bindparam("now")
# Deliveries that are being sent count against the limits.
_IS_SENDING = webhook_deliveries.c.id.in_(bindparam("sending", expanding=True))
_DUE_BY_ENDPOINT = (
    select(
        webhook_deliveries,
        webhook_endpoints.c.url,
        case((_IS_SENDING, 0), else_=1).label("is_waiting"),
        func.row_number()
        .over(partition_by=webhook_deliveries.c.endpoint_id, order_by=(case((_IS_SENDING, 0), else_=1), *_DUE_FIRST))
        .label("in_endpoint"),
    )
    .join(webhook_endpoints, _OPEN)
    .where(or_(_IS_DUE, _IS_SENDING))
    .subquery()
)
_IN_ORDER = (_DUE_BY_ENDPOINT.c.is_waiting, _DUE_BY_ENDPOINT.c.next_at, _DUE_BY_ENDPOINT.c.id)
_DUE_BY_ACCOUNT = (
    select(
        _DUE_BY_ENDPOINT,
        func.row_number().over(partition_by=_DUE_BY_ENDPOINT.c.account_id, order_by=_IN_ORDER).label("in_account"),
    )
    .where(_DUE_BY_ENDPOINT.c.in_endpoint <= bindparam("per_endpoint"))
    .subquery()
)
_DUE = (
    select(_DUE_BY_ACCOUNT)
    .where(_DUE_BY_ACCOUNT.c.in_account <= bindparam("per_account"), _DUE_BY_ACCOUNT.c.is_waiting == 1)
    .order_by(_DUE_BY_ACCOUNT.c.in_account, _DUE_BY_ACCOUNT.c.next_at)
    .limit(bindparam("limit"))
)
_LOCK_DUE = (
    select(webhook_deliveries.c.id)
    .where(webhook_deliveries.c.id.in_(bindparam("ids", expanding=True)), _IS_DUE)
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(webhook_deliveries)
    .where(webhook_deliveries.c.id.in_(_LOCK_DUE))
    .values(next_at=bindparam("until"))
    .returning(webhook_deliveries.c.id)
)
_NEXT_DUE = (
    select(webhook_deliveries.c.next_at)
    .join(webhook_endpoints, _OPEN)
    .where(webhook_deliveries.c.next_at > bindparam("now"))
    .order_by(webhook_deliveries.c.next_at)
    .limit(1)
)
_insert_endpoint = dialect.upsert(
    webhook_endpoints, lambda insert_: insert_.on_conflict_do_nothing(index_elements=("account_id", "url"))
)

#: Seconds after which a leased delivery is due again, if its attempt was not recorded: longer than an attempt takes.
SEND_LEASE_S = 60.0
#: Bytes of a signing secret.
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The largest numbers of concurrent deliveries, so that receivers that hang delay only their own account."""

    total: int
    per_account: int
    per_endpoint: int


def new_secret() -> str:
    """Return a random signing secret, as in the Standard Webhooks specification."""
    return f"whsec_{b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def add_endpoint(connection: Connection, account_id: str, url: str, now: float) -> None:
    """Create an account's endpoint for a URL, and the account's first secret, if they do not exist."""
    if _endpoint(connection, account_id, url) is None:
        values = {"id": str(uuid7()), "account_id": account_id, "url": url, "created_at": now}
        connection.execute(_insert_endpoint(connection), values)
    _set_first_secret(connection, account_id)


def enqueue(connection: Connection, job: Job, state: JobState, now: float) -> None:
    """Write the delivery for a job that ends in `state`, unless its endpoint was removed or disabled."""
    assert job.options.webhook_url is not None  # `job_transitions` calls this only for a job with a webhook
    endpoint = _endpoint(connection, job.account_id, job.options.webhook_url, is_locked=True)
    if endpoint is None or endpoint.disabled_at is not None:
        return
    connection.execute(
        insert(webhook_deliveries).values(
            id=f"msg_{job.id}",
            account_id=job.account_id,
            endpoint_id=endpoint.id,
            job_id=job.id,
            event=f"job.{state.value}",
            created_at=now,
            next_at=now,
        )
    )


class Outbox(Repository):
    """Endpoints, their secrets, and the deliveries to them."""

    @reads
    def endpoints(self, connection: Connection, account_id: str) -> list[WebhookEndpoint]:
        """Return an account's endpoints, oldest first."""
        wanted = select(*_ENDPOINT_COLUMNS).where(webhook_endpoints.c.account_id == account_id)
        rows = connection.execute(wanted.order_by(webhook_endpoints.c.created_at, webhook_endpoints.c.id))
        return list(readable(rows, _to_endpoint))

    @reads
    def find(self, connection: Connection, account_id: str, url: str) -> WebhookEndpoint | None:
        """Return an account's endpoint for a URL, or None."""
        return _endpoint(connection, account_id, url)

    @writes
    def delete_endpoint(self, connection: Connection, account_id: str, endpoint_id: str) -> bool:
        """Remove an account's endpoint and its deliveries. Returns False when the account has no such endpoint."""
        own = webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.account_id == account_id
        if not connection.execute(select(webhook_endpoints.c.id).where(*own).with_for_update()).first():
            return False
        connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.endpoint_id == endpoint_id))
        connection.execute(delete(webhook_endpoints).where(*own))
        return True

    @reads
    def secrets(self, connection: Connection, account_id: str, now: float) -> tuple[str, ...]:
        """Return the secrets that sign an account's webhooks, newest first; empty until the first is set."""
        return _secrets(connection, account_id, now)

    @writes
    def set_first_secret(self, connection: Connection, account_id: str) -> None:
        """Set the signing secret of an account that has none."""
        _set_first_secret(connection, account_id)

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
        """Set a new signing secret; the previous one also signs until `old_until`, unix seconds.

        A replayed request changes nothing. Raises `IdempotencyMismatch`.
        """
        if claim and claim_resource(connection, account_id, claim, account_id, now):
            return
        changed = {"old_webhook_secret": accounts.c.webhook_secret, "old_webhook_secret_until": old_until}
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**changed, webhook_secret=secret))

    @writes
    def remove_finished(self, connection: Connection, now: float) -> None:
        """Remove deliveries that have ended and are older than `RETENTION_S`."""
        is_over = webhook_deliveries.c.next_at.is_(None), webhook_deliveries.c.created_at < now - RETENTION_S
        connection.execute(delete(webhook_deliveries).where(*is_over))

    async def lease_due(
        self, now: float, limits: DeliveryLimits, sending: Collection[str] = ()
    ) -> list[WebhookDelivery]:
        """Lease deliveries that are due, within the limits: those due first of each endpoint and account.

        On a shared database no other call returns them for `SEND_LEASE_S` seconds; after that, those whose attempt was
        not recorded are due again. sending: ids of the deliveries that the caller still sends, which are not returned
        and count against the limits.
        """
        bounds = {
            "now": now,
            "limit": max(0, limits.total - len(sending)),
            "per_account": limits.per_account,
            "per_endpoint": limits.per_endpoint,
            "sending": list(sending),
        }
        # This runs often, so a read decides whether a writing transaction is needed.
        found = await self._due(bounds)
        if not self._database.is_shared:
            # No other process sends, and a delivery that a killed server was sending is due at the next start.
            return found
        leased = await self._lease([delivery.id for delivery in found], now) if found else set()
        return [delivery for delivery in found if delivery.id in leased]

    @writes
    def _lease(self, connection: Connection, ids: list[str], now: float) -> set[str]:
        """Lease those of the deliveries that are still due; return their ids."""
        return set(connection.execute(_LEASE, {"ids": ids, "now": now, "until": now + SEND_LEASE_S}).scalars())

    @writes
    def release(self, connection: Connection, deliveries: Collection[WebhookDelivery], now: float) -> None:
        """Make leased deliveries due whose attempts were interrupted."""
        for delivery in sorted(deliveries, key=lambda one: one.id):
            interrupted = *_is_leased(delivery), webhook_deliveries.c.next_at.is_not(None)
            connection.execute(update(webhook_deliveries).where(*interrupted).values(next_at=now))

    @reads
    def _due(self, connection: Connection, bounds: dict[str, Any]) -> list[WebhookDelivery]:
        now = bounds["now"]

        def delivery(row: Row[Any]) -> WebhookDelivery:
            check_numbers(row, ("created_at", "attempt"))
            names = ("id", "account_id", "endpoint_id", "url", "job_id", "event", "created_at", "attempt")
            values = {name: getattr(row, name) for name in names}
            return WebhookDelivery(**values, secrets=_secrets(connection, row.account_id, now))

        return list(readable(connection.execute(_DUE, bounds).all(), delivery))

    @reads
    def next_due(self, connection: Connection, now: float) -> float | None:
        """Return the time after `now` at which the next delivery is due, unix seconds; None when there is none."""
        due: float | None = connection.execute(_NEXT_DUE, {"now": now}).scalar()
        return due

    @writes
    def delivered(self, connection: Connection, delivery: WebhookDelivery, now: float) -> None:
        """Record a successful delivery."""
        _record_attempt(connection, delivery, delivered_at=now, next_at=None, last_error=None)

    @writes
    def failed(self, connection: Connection, delivery: WebhookDelivery, error: str, next_at: float | None) -> None:
        """Record a failed attempt. next_at: time of the next attempt, unix seconds; None: there is none."""
        _record_attempt(connection, delivery, next_at=next_at, last_error=error[:MAX_ERROR])

    @writes
    def disable(self, connection: Connection, delivery: WebhookDelivery, reason: str, now: float) -> None:
        """Record a failed attempt and disable the delivery's endpoint, which also ends all its deliveries."""
        endpoint_id = delivery.endpoint_id
        # Before the deliveries, as when the endpoint is deleted.
        locked = select(webhook_endpoints.c.id).where(webhook_endpoints.c.id == endpoint_id).with_for_update()
        connection.execute(locked).all()
        _record_attempt(connection, delivery, next_at=None, last_error=reason[:MAX_ERROR])
        disabled = {"disabled_at": now, "disabled_reason": reason[:MAX_ERROR]}
        connection.execute(update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id).values(**disabled))
        connection.execute(
            update(webhook_deliveries)
            .where(webhook_deliveries.c.endpoint_id == endpoint_id, webhook_deliveries.c.next_at.is_not(None))
            .values(next_at=None)
        )


def _to_endpoint(row: Row[Any]) -> WebhookEndpoint:
    check_numbers(row, ("created_at", "disabled_at"))
    return WebhookEndpoint(**{name: getattr(row, name) for name in _ENDPOINT_NAMES})


def _endpoint(connection: Connection, account_id: str, url: str, *, is_locked: bool = False) -> WebhookEndpoint | None:
    wanted = select(*_ENDPOINT_COLUMNS).where(
        webhook_endpoints.c.account_id == account_id, webhook_endpoints.c.url == url
    )
    if is_locked:
        # Until the delivery is stored, no transaction disables or deletes the endpoint.
        wanted = wanted.with_for_update(read=True, key_share=True)
    return next(readable(connection.execute(wanted), _to_endpoint), None)


def _record_attempt(connection: Connection, delivery: WebhookDelivery, **values: object) -> None:
    changed = update(webhook_deliveries).where(*_is_leased(delivery))
    connection.execute(changed.values(attempt=delivery.attempt + 1, **values))


def _is_leased(delivery: WebhookDelivery) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that no attempt was recorded since the delivery was leased."""
    return webhook_deliveries.c.id == delivery.id, webhook_deliveries.c.attempt == delivery.attempt


def _set_first_secret(connection: Connection, account_id: str) -> None:
    without = accounts.c.id == account_id, accounts.c.webhook_secret.is_(None)
    connection.execute(update(accounts).where(*without).values(webhook_secret=new_secret()))


def _secrets(connection: Connection, account_id: str, now: float) -> tuple[str, ...]:
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one()
    found = [row.webhook_secret] if row.webhook_secret else []
    if row.old_webhook_secret and (row.old_webhook_secret_until or 0) > now:
        found.append(row.old_webhook_secret)
    return tuple(found)
