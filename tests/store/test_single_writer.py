"""The list of races is complete on both sides: each names a function that exists and has a test."""

import importlib
import inspect
from functools import reduce

import pytest

from tests.store import test_races
from tests.store.single_writer import RACES, Race


def test_every_race_has_a_test_and_every_test_a_race() -> None:
    tests = [name for name, _ in inspect.getmembers(test_races, inspect.iscoroutinefunction) if "test_" in name[:5]]
    assert sorted(tests) == sorted(f"test_{race.name}" for race in RACES)


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_a_race_names_a_function_that_exists(race: Race) -> None:
    module, *path = race.function.split(".")
    found = reduce(getattr, path, importlib.import_module(f"allaprima.store.{module}"))
    assert callable(found)
    assert race.hazard.endswith(".")
    assert race.postgresql.endswith(".")
