"""The built-in model and the safety checker, read once for all tests of the engine."""

import pytest

from allaprima.engine.painter import Painter
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety import SafetyChecker
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.catalog import sketch_folder
from allaprima.weights.model import open_model
from allaprima.weights.networks import Model


@pytest.fixture(scope="session")
def sketch() -> Model:
    return open_model(sketch_folder()).load()


@pytest.fixture(scope="session")
def safety() -> SafetyChecker:
    return SafetyChecker.load()


@pytest.fixture(scope="session")
def painter(sketch: Model, safety: SafetyChecker) -> Painter:
    return Painter(Pipeline(sketch, "cpu"), safety, DEFAULT_SAFETY_THRESHOLD)
