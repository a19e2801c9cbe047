"""Money and usage. Amounts are whole credits, 2,000,000 to the US dollar."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from allaprima.domain.jobs import JobState

CURRENCY = "USD"
CREDITS_PER_USD = 2_000_000


def to_usd(credits_: int) -> float:
    """Return credits as US dollars."""
    return credits_ / CREDITS_PER_USD


def to_credits(usd: float | Decimal) -> int:
    """Return US dollars as credits, rounded to the nearest."""
    exact = Decimal(str(usd)) * CREDITS_PER_USD
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


class Price(BaseModel):
    """What a model's images cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    megapixel: float = Field(0.0, ge=0, le=1000, description="US dollars a megapixel.")
    megapixel_step: float = Field(0.0, ge=0, le=1000, description="US dollars a megapixel and step, on top.")
    cached_share: float = Field(0.0, ge=0, le=1, description="Share of the price that a cached result costs.")


class EntryDirection(StrEnum):
    """Whether a ledger entry raises or lowers the balance."""

    TOPUP = "TOPUP"
    CHARGE = "CHARGE"


class EntryType(StrEnum):
    """Why a ledger entry exists. The platform's names; here the operator pays in and use is charged."""

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
    #: Never negative.
    credits: int
    model: str | None = None
    #: The request's `x-inference-id`.
    reference_id: str | None = None
    images: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which entries of a ledger are listed; None: any."""

    #: From this time on, unix seconds.
    since: float | None = None
    #: Before this time.
    until: float | None = None
    direction: EntryDirection | None = None
    type: EntryType | None = None


@dataclass(frozen=True, slots=True)
class UsageRange:
    """Whose usage, and of when: `start` <= time < `end`, unix seconds."""

    account_id: str
    start: float
    end: float
    #: Only this key's.
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsageBucket:
    """Usage of one model in a quarter of an hour, or part of one."""

    #: Start of the quarter, unix seconds.
    start: int
    model: str
    succeeded: int
    failed: int
    #: Requests that were charged.
    charged: int
    credits: int


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request."""

    job_id: str
    key_id: str
    model: str
    state: JobState
    credits: int
    source: str
    client_request_id: str | None
    created_at: float
