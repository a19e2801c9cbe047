"""All use cases in one value, as the floors above receive them."""

from dataclasses import dataclass

from allaprima.metrics import Metrics
from allaprima.service.accounts import AccountBook
from allaprima.service.jobs import JobService
from allaprima.service.keys import KeyRing
from allaprima.service.limits import Limits
from allaprima.service.links import Links
from allaprima.service.models import Models
from allaprima.service.ports import Clock, Engine
from allaprima.service.prices import Prices
from allaprima.service.rates import Rates
from allaprima.service.safety import SafetyPolicy
from allaprima.service.usage import Usage
from allaprima.service.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class OperatorService:
    """What an operator does to a data folder."""

    accounts: AccountBook
    keys: KeyRing


@dataclass(frozen=True, slots=True)
class Service:
    """The use cases of one open data folder and one engine."""

    accounts: AccountBook
    keys: KeyRing
    jobs: JobService
    usage: Usage
    prices: Prices
    safety: SafetyPolicy
    limits: Limits
    webhooks: Webhooks
    models: Models
    links: Links
    rates: Rates
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
