"""Money, in the transaction of the job that it is for: held back before a job is accepted, charged when it ends.

An account's balance is the sum of its ledger at any commit, and `held` the most that its unfinished jobs can cost, so
that no number of clients at once can spend a credit twice. Without a price nothing is held and no balance is looked at.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update
from uuid_utils import uuid7

from allaprima.domain.accounts import LimitPeriod, period_start
from allaprima.domain.billing import EntryDirection, EntryType
from allaprima.domain.jobs import JobState
from allaprima.errors import KeyLimitReached, OutOfCredits
from allaprima.store.schema import accounts, keys, ledger, usage, usage_slots

#: Seconds of a row of `usage_slots`.
SLOT_S = 900

# What happens at every job is put together once; parameters that are no column's begin with an underscore.
_COUNT = insert(usage)
_ENTER = insert(ledger)
_MOVE_BALANCE = update(accounts).where(accounts.c.id == bindparam("_account_id"))
_MOVE_BALANCE = _MOVE_BALANCE.values(balance=accounts.c.balance + bindparam("_moved"))
_SLOT = ("account_id", "slot", "key_id", "model")
_SUMS = ("succeeded", "failed", "charged", "images", "megapixels", "credits")
_ADD_TO_SLOT = (
    update(usage_slots)
    .where(*(usage_slots.c[name] == bindparam(f"_{name}") for name in _SLOT))
    .values({name: usage_slots.c[name] + bindparam(f"_{name}") for name in _SUMS})
)
_BEGIN_SLOT = insert(usage_slots)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a finished request is counted and charged with."""

    job_id: str
    account_id: str
    key_id: str
    #: The name that was asked for.
    model: str
    #: A final one.
    state: JobState
    #: Images that were painted and not withheld.
    images: int
    megapixels: float
    credits: int
    #: What was held back for it.
    held: int
    origin: str
    client_request_id: str | None
    duration_s: float


def hold(connection: Connection, account_id: str, key_id: str, credits_: int, now: float) -> None:
    """Hold back what a job can cost. Raises `OutOfCredits` or `KeyLimitReached`; then the transaction is to be left."""
    if credits_ == 0:
        return
    key = connection.execute(select(keys).where(keys.c.id == key_id)).one()
    if key.limit_credits is not None:
        is_current = key.window_start >= period_start(LimitPeriod(key.limit_retention), now)
        spent = key.spent if is_current else 0
        if spent + key.held + credits_ > key.limit_credits:
            raise KeyLimitReached
    has_room = accounts.c.balance - accounts.c.held >= credits_
    held = connection.execute(
        update(accounts).where(accounts.c.id == account_id, has_room).values(held=accounts.c.held + credits_)
    )
    if held.rowcount != 1:
        raise OutOfCredits
    connection.execute(update(keys).where(keys.c.id == key_id).values(held=keys.c.held + credits_))


def settle(connection: Connection, charge: Charge, now: float) -> None:
    """Count a finished request, charge it, and give back what was held."""
    values = {
        "job_id": charge.job_id,
        "account_id": charge.account_id,
        "key_id": charge.key_id,
        "model": charge.model,
        "images": charge.images,
        "megapixels": charge.megapixels,
        "credits": charge.credits,
        "created_at": now,
        "slot": _slot(now),
        "state": charge.state.value,
        "origin": charge.origin,
        "client_request_id": charge.client_request_id,
        "duration_s": charge.duration_s,
    }
    connection.execute(_COUNT, values)
    _add_to_slot(connection, charge, now)
    if charge.images:
        enter(
            connection,
            charge.account_id,
            EntryDirection.CHARGE,
            EntryType.MODEL_USAGE,
            charge.credits,
            now,
            model=charge.model,
            reference_id=charge.job_id,
            images=charge.images,
        )
    if charge.held or charge.credits:
        _spend(connection, charge, now)


def enter(
    connection: Connection,
    account_id: str,
    direction: EntryDirection,
    kind: EntryType,
    credits_: int,
    now: float,
    *,
    model: str | None = None,
    reference_id: str | None = None,
    images: int | None = None,
    note: str | None = None,
) -> None:
    """Write a row of the ledger and move the balance by it."""
    values = {
        "id": str(uuid7()),
        "account_id": account_id,
        "created_at": now,
        "direction": direction.value,
        "type": kind.value,
        "credits": credits_,
        "model": model,
        "reference_id": reference_id,
        "images": images,
        "note": note,
    }
    connection.execute(_ENTER, values)
    if credits_:
        moved = credits_ if direction == EntryDirection.TOPUP else -credits_
        connection.execute(_MOVE_BALANCE, {"_account_id": account_id, "_moved": moved})


def _spend(connection: Connection, charge: Charge, now: float) -> None:
    connection.execute(
        update(accounts).where(accounts.c.id == charge.account_id).values(held=accounts.c.held - charge.held)
    )
    key = connection.execute(select(keys).where(keys.c.id == charge.key_id)).one()
    start = period_start(LimitPeriod(key.limit_retention), now) if key.limit_retention else 0.0
    is_current = key.window_start >= start
    month = period_start(LimitPeriod.MONTH, now)
    connection.execute(
        update(keys)
        .where(keys.c.id == charge.key_id)
        .values(
            held=key.held - charge.held,
            spent=(key.spent if is_current else 0) + charge.credits,
            period_start=key.window_start if is_current else start,
            month_spent=(key.month_spent if key.month_start >= month else 0) + charge.credits,
            month_start=max(key.month_start, month),
        )
    )


def _add_to_slot(connection: Connection, charge: Charge, now: float) -> None:
    has_succeeded = charge.state == JobState.SUCCEEDED
    added = {
        "succeeded": int(has_succeeded),
        "failed": int(not has_succeeded),
        "charged": int(charge.images > 0),
        "images": charge.images,
        "megapixels": charge.megapixels,
        "credits": charge.credits,
    }
    place = {"account_id": charge.account_id, "slot": _slot(now), "key_id": charge.key_id, "model": charge.model}
    found = connection.execute(_ADD_TO_SLOT, {f"_{name}": value for name, value in (place | added).items()})
    if found.rowcount == 0:
        connection.execute(_BEGIN_SLOT, place | added)


def _slot(now: float) -> int:
    return int(now // SLOT_S * SLOT_S)
