"""`/v2/billing` and `/v1/billing/balance`: the balance and the ledger, as the platform shows them."""

from typing import Any

from fastapi import APIRouter, Request

from allaprima.api.deps import CallerKey, OrdinaryKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.pagination import read_cursor, write_cursor
from allaprima.api.http.query import Parameters, documented
from allaprima.api.v1.keys import iso
from allaprima.api.v1.usage import CURRENCY
from allaprima.domain.billing import EntryDirection, EntryType, LedgerEntry, LedgerFilter, to_usd

router = APIRouter(tags=["billing"])

#: A balance below this is called low.
LOW_CREDITS = 2_000_000
_TRANSACTIONS = [
    documented("from", "ISO 8601 with an offset: this time or later."),
    documented("to", "ISO 8601 with an offset: before this time."),
    documented("direction", "TOPUP or CHARGE."),
    documented("type", "PAYMENT, BONUS, REFUND, ADJUSTMENT, MODEL_USAGE, CREDITS_EXPIRED or INIT."),
    documented("limit", "1 to 100."),
    documented("cursor", "next_cursor of the page before."),
]


@router.get("/v2/billing", responses=problems(401), summary="Show the balance")
async def balance(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return what is left of the account's credits."""
    account = await service.accounts.get(key.account_id)
    return {"current_balance": to_usd(account.balance), "currency": CURRENCY}


@router.get("/v2/billing/detail", responses=problems(401), summary="Show the account")
async def detail(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the account with its balance. Nobody has an e-mail here, and nothing tops itself up."""
    account = await service.accounts.get(key.account_id)
    return {
        "user_id": account.id,
        "email": None,
        "current_balance": to_usd(account.balance),
        "currency": CURRENCY,
        "autotopup_settings": {"is_enabled": False, "threshold": None, "amount": None, "currency": CURRENCY},
    }


@router.get(
    "/v2/billing/transactions",
    responses=problems(400, 401, 403),
    openapi_extra={"parameters": _TRANSACTIONS},
    summary="List the ledger, newest first",
)
async def transactions(request: Request, key: OrdinaryKey, service: ServiceDep) -> dict[str, Any]:
    """Return rows of the account's ledger; amounts are positive, the direction carries the sign."""
    parameters = Parameters(request)
    since, until = (parameters.moment(name, needs_offset=True) for name in ("from", "to"))
    if since is not None and until is not None and until <= since:
        parameters.refuse("to", "must be after from")
    direction = parameters.choice("direction", [one.value for one in EntryDirection])
    kind = parameters.choice("type", [one.value for one in EntryType])
    limit = parameters.integer("limit", 50, 1, 100)
    cursor = parameters.one("cursor")
    before = None if cursor is None else read_cursor(cursor)
    if cursor is not None and before is None:
        parameters.refuse("cursor", "is none of ours; leave it out for the first page")
    parameters.finish()
    wanted = LedgerFilter(
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        direction=EntryDirection(direction) if direction else None,
        type=EntryType(kind) if kind else None,
    )
    rows = await service.ledger.entries(key.account_id, wanted, before, limit + 1)
    has_more = len(rows) > limit
    next_cursor = write_cursor(rows[limit - 1].id) if has_more else None
    pagination = {"next_cursor": next_cursor, "has_more": has_more}
    return {"data": [_entry(row) for row in rows[:limit]], "pagination": pagination}


@router.get("/v1/billing/balance", responses=problems(401), summary="Show the balance in credits (older form)")
async def old_balance(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the balance as older clients read it."""
    account = await service.accounts.get(key.account_id)
    return {
        "balance": account.balance,
        "lowBalance": service.prices.is_charging and account.balance < LOW_CREDITS,
        "lowBalanceThreshold": LOW_CREDITS,
        "lastUpdated": iso(service.clock()),
        "autoDebitStatus": "disabled",
        "status": "current",
        "statusExplanation": "Balance is current and up to date",
    }


def _entry(row: LedgerEntry) -> dict[str, Any]:
    return {
        "created_at": iso(row.created_at),
        "direction": row.direction.value,
        "type": row.type.value,
        "amount": {"usd": to_usd(row.credits), "credits": row.credits},
        "model": row.model,
        "reference_id": row.reference_id,
        "images": row.images,
    }
