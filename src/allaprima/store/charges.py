"""Charges: credits are held when a job is admitted and captured when it ends, in the job's own transactions.

At every commit an account's balance is the sum of its ledger, and `held` is the most that its unfinished jobs can cost,
so concurrent clients can't spend a credit twice. For a model without a price nothing is held or checked.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Executable, bindparam, insert, select, update
from uuid_utils import uuid7

from allaprima.domain.accounts import LimitPeriod, period_start
from allaprima.domain.billing import EntryDirection, EntryType, LedgerEntry
from allaprima.domain.jobs import JobState
from allaprima.errors import KeyLimitReached, OutOfCredits
from allaprima.store import dialect
from allaprima.store.ledger import post_entry
from allaprima.store.schema import accounts, api_keys, usage, usage_buckets

#: Length of a usage bucket in seconds.
BUCKET_S = 900

# Statements that run for every job are built once. Parameters that are not columns start with an underscore.
_INSERT_USAGE = insert(usage)
_BUCKET = ("account_id", "start", "key_id", "model")
_SUMS = ("succeeded", "failed", "charged", "images", "megapixels", "credits", "compute_s")
# Without a lock of the primary key, so that inserts of jobs, which refer to it, do not wait.
_LOCK_KEY = select(api_keys).where(api_keys.c.id == bindparam("id")).with_for_update(key_share=True)


def _build_addition(insert_: dialect.Insert) -> Executable:
    added = {name: usage_buckets.c[name] + insert_.excluded[name] for name in _SUMS}
    return insert_.on_conflict_do_update(index_elements=_BUCKET, set_=added)


_add_to_bucket = dialect.upsert(usage_buckets, _build_addition)


@dataclass(frozen=True, slots=True)
class Charge:
    """The usage and the cost of one finished job."""

    job_id: str
    account_id: str
    key_id: str
    #: The model name in the request.
    model: str
    #: A final state.
    state: JobState
    #: Number of images that were generated and not withheld.
    images: int
    megapixels: float
    credits: int
    #: Credits that were held for the job.
    held: int
    source: str
    client_request_id: str | None
    duration_s: float
    #: Seconds that the engine generated.
    compute_s: float = 0.0


def hold(connection: Connection, account_id: str, key_id: str, credits_: int, now: float) -> None:
    """Hold the most credits that a job can cost. Does nothing for 0.

    Raises `OutOfCredits` or `KeyLimitReached`; the caller must then roll the transaction back.
    """
    if credits_ == 0:
        return
    key = connection.execute(_LOCK_KEY, {"id": key_id}).one()
    if key.limit_credits is not None:
        is_current = key.period_start >= period_start(LimitPeriod(key.limit_period), now)
        spent = key.spent if is_current else 0
        if spent + key.held + credits_ > key.limit_credits:
            raise KeyLimitReached
    is_covered = accounts.c.balance - accounts.c.held >= credits_
    held = connection.execute(
        update(accounts).where(accounts.c.id == account_id, is_covered).values(held=accounts.c.held + credits_)
    )
    if held.rowcount != 1:
        raise OutOfCredits
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(held=api_keys.c.held + credits_))


def capture(connection: Connection, charge: Charge, now: float) -> None:
    """Charge the credits of a finished job, and release its hold. Locks the key, then the account."""
    if charge.held or charge.credits:
        _change_sums(connection, charge, now)
    if charge.images:
        entry = LedgerEntry(
            id=str(uuid7()),
            created_at=now,
            direction=EntryDirection.CHARGE,
            type=EntryType.MODEL_USAGE,
            credits=charge.credits,
            model=charge.model,
            reference_id=charge.job_id,
            images=charge.images,
        )
        post_entry(connection, charge.account_id, entry)


def record_usage(connection: Connection, charge: Charge, now: float) -> None:
    """Record the usage of a finished job. Locks the usage bucket, which most transactions of the account share."""
    values = {
        "job_id": charge.job_id,
        "account_id": charge.account_id,
        "key_id": charge.key_id,
        "model": charge.model,
        "images": charge.images,
        "megapixels": charge.megapixels,
        "credits": charge.credits,
        "created_at": now,
        "bucket": _bucket_start(now),
        "state": charge.state.value,
        "source": charge.source,
        "client_request_id": charge.client_request_id,
        "duration_s": charge.duration_s,
        "compute_s": charge.compute_s,
    }
    connection.execute(_INSERT_USAGE, values)
    has_succeeded = charge.state == JobState.SUCCEEDED
    bucket = {
        "account_id": charge.account_id,
        "start": _bucket_start(now),
        "key_id": charge.key_id,
        "model": charge.model,
        "succeeded": int(has_succeeded),
        "failed": int(not has_succeeded),
        "charged": int(charge.images > 0),
        "images": charge.images,
        "megapixels": charge.megapixels,
        "credits": charge.credits,
        "compute_s": charge.compute_s,
    }
    connection.execute(_add_to_bucket(connection), bucket)


def _change_sums(connection: Connection, charge: Charge, now: float) -> None:
    key = connection.execute(_LOCK_KEY, {"id": charge.key_id}).one()
    start = period_start(LimitPeriod(key.limit_period), now) if key.limit_period else 0.0
    is_current = key.period_start >= start
    month = period_start(LimitPeriod.MONTH, now)
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == charge.key_id)
        .values(
            held=key.held - charge.held,
            spent=(key.spent if is_current else 0) + charge.credits,
            period_start=key.period_start if is_current else start,
            month_spent=(key.month_spent if key.month_start >= month else 0) + charge.credits,
            month_start=max(key.month_start, month),
        )
    )
    connection.execute(
        update(accounts).where(accounts.c.id == charge.account_id).values(held=accounts.c.held - charge.held)
    )


def _bucket_start(now: float) -> int:
    return int(now // BUCKET_S * BUCKET_S)
