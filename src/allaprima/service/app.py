"""All use cases in one value, as the floors above receive them."""

from dataclasses import dataclass

from allaprima.domain.ports import Clock, Engine
from allaprima.metrics import Metrics
from allaprima.service.accounts.accounts import AccountService
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.service.accounts.prices import Prices
from allaprima.service.accounts.rate_limits import MemoryRateLimiter
from allaprima.service.accounts.usage import Usage
from allaprima.service.jobs.service import JobService
from allaprima.service.limits import Limits
from allaprima.service.links import Links
from allaprima.service.models import Models
from allaprima.service.safety import SafetyPolicy
from allaprima.service.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class OperatorService:
    """What an operator does to a data folder."""

    accounts: AccountService
    keys: ApiKeyService


@dataclass(frozen=True, slots=True)
class Service:
    """The use cases of one open data folder and one engine."""

    accounts: AccountService
    keys: ApiKeyService
    jobs: JobService
    usage: Usage
    prices: Prices
    safety: SafetyPolicy
    limits: Limits
    webhooks: Webhooks
    models: Models
    links: Links
    rates: MemoryRateLimiter
    engine: Engine
    clock: Clock
    metrics: Metrics
    #: Longest time for which a request may have its images kept, in seconds.
    max_image_ttl_s: float
    #: The key made because the store was empty; shown once by whoever opened the service.
    first_key: str | None

    @property
    def operator(self) -> OperatorService:
        """What an operator does beside the running service."""
        return OperatorService(self.accounts, self.keys)
