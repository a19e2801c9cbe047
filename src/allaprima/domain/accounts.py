"""Accounts and their API keys: who pays, who may ask, and how much a key may spend."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from allaprima.errors import ScopeMissing

#: The scope that a key needs to generate images, and to read jobs, prompts and images.
IMAGE_SCOPE = "model:image"


class LimitPeriod(StrEnum):
    """How long a spend limit counts; the platform's names."""

    NO_RESET = "no_reset"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def period_start(period: LimitPeriod, now: float) -> float:
    """Return the start of the period that holds `now`, unix seconds; 0 for the one that never ends.

    Periods start at 00:00 UTC, a week on Monday, a month on the first.
    """
    if period == LimitPeriod.NO_RESET:
        return 0.0
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == LimitPeriod.WEEK:
        midnight -= timedelta(days=midnight.weekday())
    if period == LimitPeriod.MONTH:
        midnight = midnight.replace(day=1)
    return midnight.timestamp()


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays."""

    id: str
    name: str
    created_at: float
    #: In credits.
    balance: int = 0
    #: Part of the balance that is held for unfinished jobs.
    held: int = 0


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """The most that a key may be charged in a period."""

    period: LimitPeriod
    credits: int


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The settings of a key that can be chosen."""

    name: str | None = None
    #: It manages keys and reads the bill, and generates nothing.
    is_management: bool = False
    is_disabled: bool = False
    #: None: all of them.
    scopes: tuple[str, ...] | None = None
    limit: SpendLimit | None = None
    #: None: the server's.
    requests_per_minute: int | None = None
    #: None: the server's.
    safety_threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(KeySpec):
    """A key's record, without the key itself."""

    id: str
    account_id: str
    #: The 8 characters after `ap_`.
    prefix: str
    created_at: float
    #: None while the key is valid.
    revoked_at: float | None = None
    updated_at: float = 0.0

    def require_image_scope(self) -> None:
        """Raise `ScopeMissing` unless the key may generate images, and so read jobs, prompts and images."""
        if self.is_management or (self.scopes is not None and IMAGE_SCOPE not in self.scopes):
            raise ScopeMissing(IMAGE_SCOPE)


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """A new key that replaces another, under the same record."""

    account_id: str
    #: Of the key that is replaced, and of the new one.
    prefix: str
    new_prefix: str
    at: float
