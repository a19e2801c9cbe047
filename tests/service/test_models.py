"""The names of models, and the fallback to the built-in model."""

from dataclasses import replace

import pytest

from allaprima.domain.models import CATALOG, ModelInfo
from allaprima.service.models import Models
from tests.fakes import LOCAL, SCHNELL, SKETCH, FakeEngine


def served(*models: ModelInfo, has_fallback: bool = True) -> dict[str, str]:
    """Return each served name with the model that generates for it."""
    names = Models(FakeEngine(*models), has_fallback=has_fallback)
    return {model.id: model.served_by.id for model in names.served()}


def test_built_in_model_is_fallback_for_known_model() -> None:
    assert served(SKETCH) == {"flux/schnell": "allaprima/sketch", "allaprima/sketch": "allaprima/sketch"}


def test_loaded_model_serves_its_own_name() -> None:
    assert served(SKETCH, SCHNELL) == {"flux/schnell": "flux/schnell", "allaprima/sketch": "allaprima/sketch"}


def test_fallback_can_be_switched_off() -> None:
    assert served(SKETCH, has_fallback=False) == {"allaprima/sketch": "allaprima/sketch"}
    assert served(SKETCH, SCHNELL, has_fallback=False) == served(SKETCH, SCHNELL)


def test_only_built_in_model_is_fallback() -> None:
    assert served(SCHNELL) == {"flux/schnell": "flux/schnell"}
    assert served(LOCAL) == {"mine/own": "mine/own"}


def test_model_outside_catalog_is_listed_last_by_id() -> None:
    assert list(served(LOCAL, SKETCH)) == ["flux/schnell", "allaprima/sketch", "mine/own"]


def test_unknown_name_has_no_fallback() -> None:
    models = Models(FakeEngine(SKETCH), has_fallback=True)
    for name in ("flux/dev", "", "mine/own", "flux", "schnell", " flux/schnell", "flux/schnell "):
        assert models.find(name) is None


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.id)
def test_model_lookup_ignores_letter_case(entry) -> None:
    models = Models(FakeEngine(SKETCH), has_fallback=True)
    for name in (entry.id, *entry.aliases):
        for spelling in (name, name.upper(), name.lower(), name.title()):
            found = models.find(spelling)
            assert found is not None
            assert found.id == entry.id


def test_model_outside_catalog_is_found_by_its_exact_id() -> None:
    models = Models(FakeEngine(LOCAL), has_fallback=True)
    found = models.find("mine/own")
    assert found is not None
    assert (found.entry.name, found.entry.description, found.served_by) == (LOCAL.name, LOCAL.description, LOCAL)
    assert models.find("MINE/OWN") is None


def test_fallback_is_marked() -> None:
    models = Models(FakeEngine(SKETCH), has_fallback=True)
    assert [(model.id, model.is_fallback) for model in models.served()] == [
        ("flux/schnell", True),
        ("allaprima/sketch", False),
    ]


def test_model_names_are_unique() -> None:
    names = [name.lower() for entry in CATALOG for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names))


def test_revision_known_after_loading_is_served() -> None:
    engine = FakeEngine(ModelInfo("allaprima/sketch", "", "sketch", ""))
    models = Models(engine, has_fallback=True)
    assert models.served()[1].served_by.revision == ""
    engine.become_ready(SKETCH)
    assert models.served()[1].served_by.revision == SKETCH.revision


NAMED = replace(SCHNELL, id="mine/fast", name="mine/fast", description="FLUX.1 [schnell] from x", own_id="flux/schnell")


def test_named_model_has_the_developer_of_its_catalog_model() -> None:
    found = Models(FakeEngine(SKETCH, NAMED), has_fallback=True).find("mine/fast")

    assert found is not None
    entry = found.entry
    assert (entry.name, entry.description, entry.owned_by, entry.developer) == (
        "mine/fast", "FLUX.1 [schnell] from x", "local", "Black Forest Labs",
    )  # fmt: skip
    assert not found.is_fallback


def test_named_model_does_not_replace_the_fallback() -> None:
    assert served(SKETCH, NAMED) == {
        "flux/schnell": "allaprima/sketch",
        "allaprima/sketch": "allaprima/sketch",
        "mine/fast": "mine/fast",
    }
