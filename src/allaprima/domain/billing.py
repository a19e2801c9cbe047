"""Prices and ledger entries. Amounts are whole credits; a US dollar is 2,000,000 credits."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

CURRENCY = "USD"
CREDITS_PER_USD = 2_000_000


def to_usd(credits_: int) -> float:
    """Return credits as US dollars."""
    return credits_ / CREDITS_PER_USD


def to_credits(usd: float | Decimal) -> int:
    """Return US dollars as credits, rounded to the nearest credit."""
    exact = Decimal(str(usd)) * CREDITS_PER_USD
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


class Price(BaseModel):
    """The price of a model's images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    megapixel: float = Field(0.0, ge=0, le=1000, description="US dollars per megapixel.")
    megapixel_step: float = Field(0.0, ge=0, le=1000, description="Additional US dollars per megapixel and step.")
    cached_share: float = Field(0.0, ge=0, le=1, description="Price of a cached result as a share of the full price.")


class EntryDirection(StrEnum):
    """Whether a ledger entry raises or lowers the balance."""

    TOPUP = "TOPUP"
    CHARGE = "CHARGE"


class EntryType(StrEnum):
    """Reason of a ledger entry, under the platform's names. This server writes PAYMENT, ADJUSTMENT and MODEL_USAGE."""

    PAYMENT = "PAYMENT"
    BONUS = "BONUS"
    REFUND = "REFUND"
    ADJUSTMENT = "ADJUSTMENT"
    MODEL_USAGE = "MODEL_USAGE"
    CREDITS_EXPIRED = "CREDITS_EXPIRED"
    INIT = "INIT"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry of an account's ledger."""

    id: str
    created_at: float
    direction: EntryDirection
    type: EntryType
    #: Amount, never negative.
    credits: int
    model: str | None = None
    #: The `x-inference-id` of the request.
    reference_id: str | None = None
    images: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """A filter of ledger entries. None matches any value."""

    #: At or after this time, in unix seconds.
    since: float | None = None
    #: Before this time, in unix seconds.
    until: float | None = None
    direction: EntryDirection | None = None
    type: EntryType | None = None
