"""Prices of images by megapixel and step, which the operator sets. By default images are free.

The price of an image is rounded to whole credits, so that charges have no fractions.
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
        """Return prices by model id. named: prices by id or alias. Raises `SettingsError` for an unknown model.

        A model that the operator named and gave no price costs what its catalog's model costs.
        """
        loaded = {info.id for info in roster.models}
        table: dict[str, Price] = {}
        for name, price in named.items():
            entry = find(name)
            if entry is None and name not in loaded:
                known = ", ".join(sorted({*loaded, *(one.id for one in CATALOG)}))
                raise SettingsError(f"billing.prices: unknown model {name!r}; known are {known}")
            table[entry.id if entry else name] = price
        inherited = {info.id: table[info.own_id] for info in roster.models if info.own_id in table}
        return cls(inherited | table)

    @property
    def is_charging(self) -> bool:
        """Whether any image has a price."""
        return any(price.megapixel or price.megapixel_step for price in self._table.values())

    def of(self, model: str) -> Price:
        """Return the price of a model, which is zero by default."""
        return self._table.get(model, _FREE)

    def credits(self, model: str, request: GenerationRequest, images: int, *, is_cached: bool = False) -> int:
        """Return the total price of some images of a request, in credits. images: their number."""
        price = self.of(model)
        megapixels = Decimal(request.width * request.height) / 1_000_000
        rate = Decimal(str(price.megapixel)) + Decimal(str(price.megapixel_step)) * request.steps
        share = Decimal(str(price.cached_share)) if is_cached else Decimal(1)
        return to_credits(megapixels * rate * share) * images
