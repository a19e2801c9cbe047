"""Opens models by path; the content of the path decides the format."""

from collections.abc import Iterable
from pathlib import Path

from allaprima.weights.builtin import open_model_folder
from allaprima.weights.builtin_header import is_model_folder
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import ModelFiles
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.paths import default_folder, model_paths
from allaprima.weights.roster import check_distinct


def open_model(path: Path, tokenizers: Path | None = None, weights_dir: Path | None = None) -> ModelFiles:
    """Open a model folder in the built-in format or a published checkpoint, without reading its weights.

    tokenizers: folder of FLUX's two tokenizers; None: the checkpoint's own, or the package's. weights_dir: the folder
    of the packed-weight cache and of pulled models; None: the user's cache folder. Raises `WeightsError`, naming the
    file.
    """
    if is_model_folder(path):
        return open_model_folder(path)
    return open_checkpoint(path, PackedWeightCache(weights_dir or default_folder()), tokenizers)


def open_models(
    models: Iterable[str], tokenizers: Path | None = None, weights_dir: Path | None = None
) -> list[ModelFiles]:
    """Open the built-in model and the given models with `open_model`.

    models: paths or names. Raises `WeightsError`, and `SettingsError` when two paths have the same model.
    """
    paths = model_paths(models, weights_dir or default_folder())
    opened = [open_model(path, tokenizers, weights_dir) for path in paths]
    check_distinct(files.id for files in opened)
    return opened
