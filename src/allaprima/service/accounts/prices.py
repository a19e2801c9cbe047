"""What pictures cost: by megapixel and step, from the operator's table; nothing where there is none.

Amounts are whole credits, 2,000,000 to the US dollar, an image's rounded to the nearest; so a bill has no fractions.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal

from allaprima.domain.billing import Price
from allaprima.domain.generation import GenerationRequest

CREDITS_PER_USD = 2_000_000
_FREE = Price()


def to_usd(credits_: int) -> float:
    """Return credits as US dollars."""
    return credits_ / CREDITS_PER_USD


def to_credits(usd: float | Decimal) -> int:
    """Return US dollars as credits, rounded to the nearest."""
    exact = Decimal(str(usd)) * CREDITS_PER_USD
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


class Prices:
    """The operator's prices by the name that is asked for."""

    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = dict(table)

    @property
    def is_charging(self) -> bool:
        """Whether anything costs anything."""
        return any(price.megapixel or price.megapixel_step for price in self._table.values())

    def of(self, model: str) -> Price:
        """Return a model's price, which is nothing unless the operator says otherwise."""
        return self._table.get(model, _FREE)

    def credits(self, model: str, request: GenerationRequest, images: int, *, is_cached: bool = False) -> int:
        """Return what a number of a request's images cost together."""
        price = self.of(model)
        megapixels = Decimal(request.width * request.height) / 1_000_000
        rate = Decimal(str(price.megapixel)) + Decimal(str(price.megapixel_step)) * request.steps
        share = Decimal(str(price.cached_share)) if is_cached else Decimal(1)
        return to_credits(megapixels * rate * share) * images
