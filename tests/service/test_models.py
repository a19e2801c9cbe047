"""Which model answers to which name, and when the built-in one stands in for another."""

import pytest

from allaprima.domain.models import CATALOG, ModelInfo
from allaprima.service.models import Models
from fakes import LOCAL, SCHNELL, SKETCH, FakeEngine


def served(*models: ModelInfo, has_stand_in: bool = True) -> dict[str, str]:
    """Return each served name with the model that paints for it."""
    names = Models(FakeEngine(*models), has_stand_in=has_stand_in)
    return {model.id: model.painted_by.id for model in names.served()}


def test_the_built_in_model_stands_in_for_a_known_model_that_is_not_here() -> None:
    assert served(SKETCH) == {"flux/schnell": "allaprima/sketch", "allaprima/sketch": "allaprima/sketch"}


def test_a_model_that_is_here_paints_for_itself() -> None:
    assert served(SKETCH, SCHNELL) == {"flux/schnell": "flux/schnell", "allaprima/sketch": "allaprima/sketch"}


def test_the_stand_in_can_be_switched_off() -> None:
    assert served(SKETCH, has_stand_in=False) == {"allaprima/sketch": "allaprima/sketch"}
    assert served(SKETCH, SCHNELL, has_stand_in=False) == served(SKETCH, SCHNELL)


def test_only_the_built_in_model_stands_in() -> None:
    assert served(SCHNELL) == {"flux/schnell": "flux/schnell"}
    assert served(LOCAL) == {"mine/own": "mine/own"}


def test_a_model_that_nobody_knows_is_served_under_its_id_after_the_known() -> None:
    assert list(served(LOCAL, SKETCH)) == ["flux/schnell", "allaprima/sketch", "mine/own"]


def test_nothing_stands_in_for_an_unknown_name() -> None:
    models = Models(FakeEngine(SKETCH), has_stand_in=True)
    for name in ("flux/dev", "", "mine/own", "flux", "schnell", " flux/schnell", "flux/schnell "):
        assert models.find(name) is None


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.id)
def test_a_model_is_found_by_its_id_and_aliases_in_any_letter_case(entry) -> None:
    models = Models(FakeEngine(SKETCH), has_stand_in=True)
    for name in (entry.id, *entry.aliases):
        for spelling in (name, name.upper(), name.lower(), name.title()):
            found = models.find(spelling)
            assert found is not None
            assert found.id == entry.id


def test_a_model_of_the_users_is_found_by_its_exact_id() -> None:
    models = Models(FakeEngine(LOCAL), has_stand_in=True)
    found = models.find("mine/own")
    assert found is not None
    assert (found.name, found.description, found.painted_by) == (LOCAL.name, LOCAL.description, LOCAL)
    assert models.find("MINE/OWN") is None


def test_a_stand_in_says_so() -> None:
    models = Models(FakeEngine(SKETCH), has_stand_in=True)
    assert [(model.id, model.is_stand_in) for model in models.served()] == [
        ("flux/schnell", True),
        ("allaprima/sketch", False),
    ]


def test_no_two_models_answer_to_one_name() -> None:
    names = [name.lower() for entry in CATALOG for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names))


def test_what_the_engine_learns_while_loading_is_served() -> None:
    """Revisions are known only when the weights are read; the list is made anew each time."""
    engine = FakeEngine(ModelInfo("allaprima/sketch", "", "sketch", ""))
    models = Models(engine, has_stand_in=True)
    assert models.served()[1].painted_by.revision == ""
    engine.become_ready(SKETCH)
    assert models.served()[1].painted_by.revision == SKETCH.revision
