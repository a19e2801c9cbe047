"""The list of races: each race names an existing function and has a test."""

import importlib
import inspect
from functools import reduce

import pytest

from tests.store import test_races
from tests.store.races import RACES, Race


def test_race_list_matches_race_tests() -> None:
    tests = [name for name, _ in inspect.getmembers(test_races, inspect.iscoroutinefunction) if "test_" in name[:5]]
    assert sorted(tests) == sorted(f"test_{race.name}" for race in RACES)


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_race_names_existing_function(race: Race) -> None:
    module, *path = race.function.split(".")
    found = reduce(getattr, path, importlib.import_module(f"allaprima.store.{module}"))
    assert callable(found)
    assert race.hazard.endswith(".")
    assert race.protection.endswith(".")
