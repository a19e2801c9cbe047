"""The containers of the use cases that the HTTP API and the command line use."""

from dataclasses import dataclass

from allaprima.domain.clock import Clock
from allaprima.domain.ports import EphemeralResults, RateLimiter, Roster
from allaprima.metrics import Metrics
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.service.accounts.prices import Prices
from allaprima.service.archive import Archives
from allaprima.service.image_space import ImageSpace
from allaprima.service.images import ImageService
from allaprima.service.jobs.admission import Admission
from allaprima.service.jobs.cancellation import Cancellation
from allaprima.service.jobs.service import JobService
from allaprima.service.lifecycle import Lifecycle
from allaprima.service.models import Models
from allaprima.service.operator import OperatorService
from allaprima.service.policy import Policy
from allaprima.service.sign_in import SignIn
from allaprima.service.thumbnails import Thumbnails
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
    thumbnails: Thumbnails
    archives: Archives
    space: ImageSpace
    ephemeral: EphemeralResults
    models: Models
    webhooks: Webhooks
    prices: Prices
    policy: Policy
    rates: RateLimiter
    roster: Roster
    lifecycle: Lifecycle
    clock: Clock
    metrics: Metrics
    #: Repositories that the API reads directly, because no further rule applies.
    job_records: JobRepository
    ledger: LedgerRepository
    usage: UsageRepository
    #: The key that was created because the store had none, to be printed once; else None.
    first_key: str | None
    #: The key that requests without a key act as; None: they are refused.
    local_key: str | None
    sign_in: SignIn

    @property
    def keys(self) -> ApiKeyService:
        """The API keys."""
        return self.operator.keys

    @property
    def accounts(self) -> AccountRepository:
        """The records of accounts."""
        return self.operator.account_records
