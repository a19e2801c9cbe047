"""Builds an engine from the settings, and a generator from a model's files."""

import logging
from collections.abc import Mapping

from allaprima.domain.models import SCHNELL_ID, Precision, loading_info
from allaprima.engine.device import device_name, max_concurrency, prepare_device, with_device
from allaprima.engine.generator import Generator
from allaprima.engine.local import LocalEngine
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import CancelCheck, never_cancelled
from allaprima.settings import EngineSettings
from allaprima.weights.networks import ModelFiles
from allaprima.weights.open import open_models
from allaprima.weights.prompts.input import PromptInput
from allaprima.weights.quantize import choose_precision, mapped_bytes
from allaprima.weights.roster import ModelRoster

logger = logging.getLogger(__name__)


def build_engine(settings: EngineSettings) -> LocalEngine:
    """Return an engine for the built-in model and the configured models. The caller starts it.

    Raises `WeightsError` when a model's files are missing or invalid. Raises `SettingsError` when the device is missing
    or does not support the precision, or when two paths have the same id.
    """
    settings = prepare_device(settings)
    opened = open_models(settings.models, settings.tokenizer_dir, settings.weights_dir)

    def load(check: CancelCheck) -> Mapping[str, Generator]:
        safety = SafetyChecker.load()
        generators: dict[str, Generator] = {}
        mapped = 0
        for files in opened:
            generators[files.id] = generator = build_generator(files, safety, settings, check, mapped)
            if files.own_id == SCHNELL_ID:
                mapped += mapped_bytes(files.config, generator.model.precision, settings.device)
        return generators

    roster = ModelRoster(
        (loading_info(files.id, files.own_id, files.path.name), PromptInput(files.tokenizers[0], files.reader))
        for files in opened
    )
    return LocalEngine(roster, load, max_concurrency(settings, opened))


def build_generator(
    files: ModelFiles,
    safety: SafetyChecker,
    settings: EngineSettings,
    check: CancelCheck = never_cancelled,
    mapped: int = 0,
) -> Generator:
    """Load a model and return its generator. Raises `WeightsError`, and any exception of `check`.

    mapped: `mapped_bytes` of the models that are already loaded.
    """
    settings = with_device(settings)
    precision = Precision(settings.precision) if settings.precision else None
    if mapped and files.own_id == SCHNELL_ID:
        precision = choose_precision(str(files.path), files.config, precision, settings.device, mapped)
    model = files.load(settings.device, precision, check)
    logger.info(
        "loaded model %s on %s in precision %s, revision %s",
        model.id,
        device_name(settings.device),
        model.precision,
        model.revision,
    )
    return Generator(Pipeline(model, settings.device), safety, settings.safety_threshold)
