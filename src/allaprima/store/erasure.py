"""Removal of everything that an account's requests left, except what bookkeeping needs."""

from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, select, update

from allaprima.domain.jobs import UNFINISHED
from allaprima.store.database import Repository, reads, writes
from allaprima.store.job_transitions import remove_jobs
from allaprima.store.schema import (
    accounts,
    api_keys,
    idempotency_records,
    images,
    jobs,
    ledger,
    usage,
    usage_buckets,
    webhook_deliveries,
    webhook_endpoints,
)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What an account has, as numbers of rows and bytes."""

    jobs: int
    images: int
    image_bytes: int
    logged_requests: int
    idempotency_records: int
    webhook_endpoints: int
    ledger_entries: int
    usage_sums: int


class ErasureRepository(Repository):
    """Counts and removes the rows of an account. Every method may be repeated after a crash."""

    @writes
    def disable_keys(self, connection: Connection, account_id: str, now: float) -> int:
        """Disable all keys of an account; return how many were valid."""
        is_valid = api_keys.c.account_id == account_id, api_keys.c.revoked_at.is_(None), api_keys.c.is_disabled == 0
        # The lock ends the admissions that have read a key as valid; an update alone does not wait for them.
        connection.execute(select(api_keys.c.id).where(*is_valid).order_by(api_keys.c.id).with_for_update()).all()
        disabled = update(api_keys).where(*is_valid).values(is_disabled=1, updated_at=now)
        return connection.execute(disabled).rowcount

    @reads
    def count_unfinished(self, connection: Connection, account_id: str) -> int:
        """Return the number of an account's queued and running jobs."""
        wanted = select(func.count()).where(jobs.c.account_id == account_id, jobs.c.state.in_(UNFINISHED))
        return connection.execute(wanted).scalar_one()

    @reads
    def holdings(self, connection: Connection, account_id: str) -> Holdings:
        """Return what an account has."""

        def count(table: Table) -> int:
            counted = select(func.count()).select_from(table).where(table.c.account_id == account_id)
            return connection.execute(counted).scalar_one()

        size = select(accounts.c.image_bytes).where(accounts.c.id == account_id)
        return Holdings(
            jobs=count(jobs),
            images=count(images),
            image_bytes=connection.execute(size).scalar_one(),
            logged_requests=count(usage),
            idempotency_records=count(idempotency_records),
            webhook_endpoints=count(webhook_endpoints),
            ledger_entries=count(ledger),
            usage_sums=count(usage_buckets),
        )

    @writes
    def remove_jobs(self, connection: Connection, account_id: str, limit: int) -> tuple[int, list[str]]:
        """Remove at most `limit` finished jobs of an account; return their number, and the names of the files."""
        finished = jobs.c.account_id == account_id, jobs.c.state.not_in(UNFINISHED)
        locked = select(jobs.c.id).where(*finished).limit(limit).with_for_update(skip_locked=True)
        ids = list(connection.execute(locked).scalars())
        return len(ids), remove_jobs(connection, ids)

    @writes
    def remove_rest(self, connection: Connection, account_id: str) -> None:
        """Remove an account's log of requests, idempotency records, webhooks and their secrets."""
        # An endpoint is removed after its deliveries, which refer to it.
        for table in (usage, idempotency_records, webhook_deliveries, webhook_endpoints):
            connection.execute(delete(table).where(table.c.account_id == account_id))
        secrets = {"webhook_secret": None, "old_webhook_secret": None, "old_webhook_secret_until": None}
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(secrets))

    async def compact(self) -> None:
        """Rewrite the database, so that no byte of a removed row remains in its files. Raises `StoreError`."""
        await self._database.compact()
