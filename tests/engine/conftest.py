"""The built-in model and the safety checker, loaded once for all tests of the engine."""

import pytest

from allaprima.engine.generator import Generator
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.networks import Model
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder


@pytest.fixture(scope="session")
def sketch() -> Model:
    return open_model(sketch_folder()).load()


@pytest.fixture(scope="session")
def safety() -> SafetyChecker:
    return SafetyChecker.load()


@pytest.fixture(scope="session")
def generator(sketch: Model, safety: SafetyChecker) -> Generator:
    return Generator(Pipeline(sketch, "cpu"), safety, DEFAULT_SAFETY_THRESHOLD)
