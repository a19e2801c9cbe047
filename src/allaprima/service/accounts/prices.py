"""What images cost: by megapixel and step, from the operator's table; nothing without one.

The price of an image is rounded to whole credits, so a bill has no fractions.
"""

from collections.abc import Mapping
from decimal import Decimal

from allaprima.domain.billing import Price, to_credits
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import CATALOG, find
from allaprima.domain.ports import Roster
from allaprima.errors import SettingsError

_FREE = Price()


class Prices:
    """The operator's prices by model id."""

    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = dict(table)

    @classmethod
    def for_models(cls, named: Mapping[str, Price], roster: Roster) -> "Prices":
        """Return the prices of a table by id or alias. Raises `SettingsError` for a name that no model has."""
        loaded = {info.id for info in roster.models}
        table: dict[str, Price] = {}
        for name, price in named.items():
            entry = find(name)
            if entry is None and name not in loaded:
                known = ", ".join(sorted({*loaded, *(one.id for one in CATALOG)}))
                raise SettingsError(f"billing.prices: there is no model {name!r}; known are {known}")
            table[entry.id if entry else name] = price
        return cls(table)

    @property
    def is_charging(self) -> bool:
        """Whether any image has a price."""
        return any(price.megapixel or price.megapixel_step for price in self._table.values())

    def of(self, model: str) -> Price:
        """Return a model's price."""
        return self._table.get(model, _FREE)

    def credits(self, model: str, request: GenerationRequest, images: int, *, is_cached: bool = False) -> int:
        """Return what a number of a request's images cost together, in credits."""
        price = self.of(model)
        megapixels = Decimal(request.width * request.height) / 1_000_000
        rate = Decimal(str(price.megapixel)) + Decimal(str(price.megapixel_step)) * request.steps
        share = Decimal(str(price.cached_share)) if is_cached else Decimal(1)
        return to_credits(megapixels * rate * share) * images
