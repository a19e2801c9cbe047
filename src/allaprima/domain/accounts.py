"""Accounts and their API keys: balances, scopes and spend limits."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from allaprima.errors import ScopeMissing

#: The scope that a key requires to generate images and to read jobs, prompts and images.
IMAGE_SCOPE = "model:image"


class LimitPeriod(StrEnum):
    """Period of a spend limit, under the platform's names."""

    NO_RESET = "no_reset"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def period_start(period: LimitPeriod, now: float) -> float:
    """Return the start of the period that contains `now`, in unix seconds; 0 for `NO_RESET`.

    Periods start at 00:00 UTC, weeks on Monday, months on the first day.
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
    """An account, which owns keys, jobs and credits."""

    id: str
    name: str
    created_at: float
    #: Balance in credits.
    balance: int = 0
    #: Part of the balance that is held for unfinished jobs.
    held: int = 0


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """The largest amount that a key may spend in a period, in credits."""

    period: LimitPeriod
    credits: int


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The configurable settings of an API key."""

    name: str | None = None
    #: Whether the key manages keys and reads the account's usage and ledger. Such a key can't generate images.
    is_management: bool = False
    is_disabled: bool = False
    #: None: all scopes.
    scopes: tuple[str, ...] | None = None
    #: None: no limit.
    limit: SpendLimit | None = None
    #: None: the server's rate limit.
    requests_per_minute: int | None = None
    #: Default and highest threshold of the key's requests, 0 to 1; None: the server's.
    safety_threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(KeySpec):
    """The record of an API key, without the key itself. Times are in unix seconds."""

    id: str
    account_id: str
    #: The 8 characters after `ap_`.
    prefix: str
    created_at: float
    #: None while the key is valid.
    revoked_at: float | None = None
    updated_at: float = 0.0

    @property
    def generates_images(self) -> bool:
        """Whether the key may generate images and read jobs, prompts and images."""
        return not self.is_management and (self.scopes is None or IMAGE_SCOPE in self.scopes)

    def require_image_scope(self) -> None:
        """Raise `ScopeMissing` unless the key may generate images and read jobs, prompts and images."""
        if not self.generates_images:
            raise ScopeMissing(IMAGE_SCOPE)


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The replacement of a key by a new one with the same record."""

    account_id: str
    #: Prefix of the old key.
    prefix: str
    new_prefix: str
    #: Time of the rotation in unix seconds.
    at: float
