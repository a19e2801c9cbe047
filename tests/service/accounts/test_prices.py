"""Prices: by megapixel and step, in whole credits; zero if none is set."""

import pytest

from allaprima.domain.billing import Price, to_credits, to_usd
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import ModelInfo
from allaprima.errors import SettingsError
from allaprima.service.accounts.prices import Prices
from tests.fakes import LOCAL, SKETCH, FakeEngine

REQUEST = GenerationRequest(
    prompt="a boat", seed=7, model="allaprima/sketch", width=1000 // 32 * 32, height=512, steps=4
)


@pytest.mark.parametrize(
    ("price", "images", "is_cached", "expected"),
    [
        (Price(), 4, False, 0),
        (Price(megapixel=0.003), 1, False, 3047),
        (Price(megapixel=0.003), 4, False, 4 * 3047),
        (Price(megapixel_step=0.001), 1, False, 4063),
        (Price(megapixel=0.003, megapixel_step=0.001), 1, False, 7111),
        (Price(megapixel=0.003), 1, True, 0),
        (Price(megapixel=0.003, cached_share=0.1), 2, True, 2 * 305),
        (Price(megapixel=0.003), 0, False, 0),
    ],
)
def test_price_of_image_is_rounded_to_whole_credits(price: Price, images: int, is_cached: bool, expected: int) -> None:
    prices = Prices({"flux/schnell": price})
    # 992x512 pixels are 0.507904 megapixels.
    assert prices.credits("flux/schnell", REQUEST, images, is_cached=is_cached) == expected
    assert prices.credits("allaprima/sketch", REQUEST, images) == 0


def test_generation_without_price_is_free() -> None:
    assert not Prices({}).is_charging
    assert not Prices({"flux/schnell": Price(cached_share=1)}).is_charging
    assert Prices({"flux/schnell": Price(megapixel_step=0.1)}).is_charging


@pytest.mark.parametrize(
    ("usd", "expected"), [(0, 0), (1, 2_000_000), (0.003, 6000), (0.00000025, 1), (-5, -10_000_000)]
)
def test_dollar_is_two_million_credits(usd: float, expected: int) -> None:
    assert to_credits(usd) == expected
    assert to_usd(expected) == pytest.approx(usd, abs=5e-7)


def test_price_can_be_set_by_id_or_alias() -> None:
    price = Price(megapixel=0.1)
    for name, model in (("flux-schnell", "flux/schnell"), ("SKETCH", "allaprima/sketch"), ("mine/own", "mine/own")):
        assert Prices.for_models({name: price}, FakeEngine(SKETCH, LOCAL)).of(model) == price


def test_named_model_costs_what_its_catalog_model_costs() -> None:
    named = ModelInfo("mine/fast", "7" * 40, "mine/fast", "", own_id="flux/schnell")
    price, other = Price(megapixel=0.1), Price(megapixel=0.2)

    assert Prices.for_models({"flux-schnell": price}, FakeEngine(SKETCH, named)).of("mine/fast") == price
    with_own = Prices.for_models({"flux/schnell": price, "mine/fast": other}, FakeEngine(SKETCH, named))
    assert (with_own.of("mine/fast"), with_own.of("flux/schnell")) == (other, price)
    assert Prices.for_models({"mine/fast": other}, FakeEngine(SKETCH, named)).of("flux/schnell") == Price()


def test_price_of_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"billing\.prices: unknown model 'flux/dev'; known are allaprima"):
        Prices.for_models({"flux/dev": Price()}, FakeEngine())
