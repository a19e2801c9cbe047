"""`/v2/billing` and `/v1/billing/balance`: the balance and the ledger of an account, in the platform's form."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, ValidationInfo, field_validator

from allaprima.api.deps import CallerKey, OrdinaryKey, ServiceDep
from allaprima.api.errors import problems
from allaprima.api.http.pagination import Cursor, write_cursor
from allaprima.api.http.query import MomentWithOffset, PageSize, QueryModel, one_of, query_of
from allaprima.domain.billing import CURRENCY, EntryDirection, EntryType, LedgerEntry, LedgerFilter, to_usd
from allaprima.domain.fields import refusal
from allaprima.domain.timestamps import iso

router = APIRouter(tags=["billing"])

#: A balance below this number of credits is reported as low.
LOW_CREDITS = 2_000_000


class LedgerQuery(QueryModel):
    """The parameters of `/v2/billing/transactions`."""

    since: MomentWithOffset | None = Field(
        None, alias="from", description="Only entries at or after this time; ISO 8601 with an offset."
    )
    until: MomentWithOffset | None = Field(
        None, alias="to", description="Only entries before this time; ISO 8601 with an offset."
    )
    direction: Annotated[EntryDirection, one_of(EntryDirection)] | None = Field(
        None, description="Only entries of this direction."
    )
    type: Annotated[EntryType, one_of(EntryType)] | None = Field(None, description="Only entries of this type.")
    limit: PageSize = Field(50, description="Largest number of entries per page.")
    cursor: Cursor | None = Field(None, description="The next_cursor of the previous page.")

    @field_validator("until")
    @classmethod
    def _check_until(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("since")
        if since is not None and until is not None and until <= since:
            raise refusal("must be after from")
        return until


@router.get("/v2/billing", responses=problems(401), summary="Show the balance")
async def balance(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the account's balance in US dollars."""
    account = await service.accounts.get(key.account_id)
    return {"current_balance": to_usd(account.balance), "currency": CURRENCY}


@router.get("/v2/billing/detail", responses=problems(401), summary="Show the account")
async def detail(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the account with its balance. The e-mail address is always null, and automatic top-up is always off."""
    account = await service.accounts.get(key.account_id)
    return {
        "user_id": account.id,
        "email": None,
        "current_balance": to_usd(account.balance),
        "currency": CURRENCY,
        "autotopup_settings": {"is_enabled": False, "threshold": None, "amount": None, "currency": CURRENCY},
    }


@router.get("/v2/billing/transactions", responses=problems(400, 401, 403), summary="List the ledger, newest first")
async def transactions(
    key: OrdinaryKey, service: ServiceDep, query: Annotated[LedgerQuery, query_of(LedgerQuery)]
) -> dict[str, Any]:
    """Return entries of the account's ledger. Amounts are positive; `direction` says if credits were added or spent."""
    wanted = LedgerFilter(
        since=query.since.timestamp() if query.since else None,
        until=query.until.timestamp() if query.until else None,
        direction=query.direction,
        type=query.type,
    )
    rows = await service.ledger.entries(key.account_id, wanted, query.cursor, query.limit + 1)
    has_more = len(rows) > query.limit
    next_cursor = write_cursor(rows[query.limit - 1].id) if has_more else None
    pagination = {"next_cursor": next_cursor, "has_more": has_more}
    return {"data": [_entry(row) for row in rows[: query.limit]], "pagination": pagination}


@router.get("/v1/billing/balance", responses=problems(401), summary="Show the balance in credits (older form)")
async def old_balance(key: CallerKey, service: ServiceDep) -> dict[str, Any]:
    """Return the balance in credits, in the form for older clients."""
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
