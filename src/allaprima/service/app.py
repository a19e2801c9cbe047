"""All use cases in one value, as the front doors receive them."""

from dataclasses import dataclass

from allaprima.domain.ports import Clock, RateLimiter, Roster
from allaprima.metrics import Metrics
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.service.accounts.prices import Prices
from allaprima.service.images import ImageService
from allaprima.service.jobs.admission import Admission
from allaprima.service.jobs.cancellation import Cancellation
from allaprima.service.jobs.service import JobService
from allaprima.service.lifecycle import Lifecycle
from allaprima.service.models import Models
from allaprima.service.operator import OperatorService
from allaprima.service.policy import Policy
from allaprima.service.webhooks import Webhooks
from allaprima.store.accounts import AccountRepository
from allaprima.store.jobs import JobRepository
from allaprima.store.ledger import LedgerRepository
from allaprima.store.usage import UsageRepository


@dataclass(frozen=True, slots=True)
class Service:
    """The use cases of one open data folder and one engine."""

    operator: OperatorService
    admission: Admission
    jobs: JobService
    cancellation: Cancellation
    images: ImageService
    models: Models
    webhooks: Webhooks
    prices: Prices
    policy: Policy
    rates: RateLimiter
    roster: Roster
    lifecycle: Lifecycle
    clock: Clock
    metrics: Metrics
    #: Repositories that the front doors read without a rule of the service between.
    job_records: JobRepository
    ledger: LedgerRepository
    usage: UsageRepository
    #: The key created because the store was empty; shown once by the command that opened the service.
    first_key: str | None

    @property
    def keys(self) -> ApiKeyService:
        """API keys."""
        return self.operator.keys

    @property
    def accounts(self) -> AccountRepository:
        """Account records."""
        return self.operator.account_records
