"""A model by its path, in whatever form it lies there."""

from pathlib import Path

from allaprima.errors import SettingsError
from allaprima.settings import EngineSettings
from allaprima.weights.builtin import is_own_folder, open_folder
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import ModelFiles
from allaprima.weights.packed_cache import Shelf
from allaprima.weights.paths import default_folder, find_path, sketch_folder


def open_model(path: Path, tokenizers: Path | None = None, weights_dir: Path | None = None) -> ModelFiles:
    """Look at a model without reading its tensors: a folder of our own, or a published checkpoint.

    tokenizers: folder of FLUX's two tokenizers, for a checkpoint that brings none. weights_dir: where what is worked
    out from a checkpoint is kept; None: the user's cache folder. Raises `WeightsError`, naming the file.
    """
    if is_own_folder(path):
        return open_folder(path)
    return open_checkpoint(path, Shelf(weights_dir or default_folder()), tokenizers)


def open_models(settings: EngineSettings) -> list[ModelFiles]:
    """Return the files of the built-in model and of the configured ones, without reading their tensors.

    Raises `WeightsError`, and `SettingsError` when two paths hold the same model.
    """
    weights_dir = settings.weights_dir or default_folder()
    named = (find_path(model, weights_dir) for model in settings.models)
    paths = {path.resolve(): None for path in (sketch_folder(), *named)}
    opened = [open_model(path, settings.tokenizer_dir, weights_dir) for path in paths]
    ids = [files.id for files in opened]
    if twice := {model_id for model_id in ids if ids.count(model_id) > 1}:
        raise SettingsError(f"engine.models: more than one path holds the model {', '.join(sorted(twice))}")
    return opened
