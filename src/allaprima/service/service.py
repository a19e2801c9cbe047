"""All use cases in one value, as the floors above receive them."""

from dataclasses import dataclass

from allaprima.service.jobs import JobService
from allaprima.service.keys import KeyRing
from allaprima.service.links import Links
from allaprima.service.models import Models
from allaprima.service.ports import Clock, Engine
from allaprima.service.rates import Rates


@dataclass(frozen=True, slots=True)
class Service:
    """The use cases of one open data folder and one engine."""

    keys: KeyRing
    jobs: JobService
    models: Models
    links: Links
    rates: Rates
    engine: Engine
    clock: Clock
    #: The key made because the store was empty; shown once by whoever opened the service.
    first_key: str | None
