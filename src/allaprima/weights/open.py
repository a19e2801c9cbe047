"""Opens models by path; the content of the path decides the format."""

from collections.abc import Iterable
from pathlib import Path

from allaprima.domain.models import SCHNELL_ID
from allaprima.weights.builtin import open_model_folder
from allaprima.weights.builtin_header import is_model_folder
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import ModelFiles
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.paths import default_folder, model_paths
from allaprima.weights.roster import check_ids


def open_model(
    path: Path, tokenizers: Path | None = None, weights_dir: Path | None = None, model_id: str | None = None
) -> ModelFiles:
    """Open a model folder in the built-in format or a published checkpoint, without reading its weights.

    tokenizers: folder of FLUX's two tokenizers; None: the checkpoint's own, or the package's. weights_dir: the folder
    of the packed-weight cache and of pulled models; None: the user's cache folder. model_id: the id that the model
    gets; None: the id that its files have. Raises `WeightsError`, naming the file.
    """
    if is_model_folder(path):
        return open_model_folder(path, model_id)
    cache = PackedWeightCache(weights_dir or default_folder())
    return open_checkpoint(path, cache, tokenizers, model_id or SCHNELL_ID)


def open_models(
    models: Iterable[str], tokenizers: Path | None = None, weights_dir: Path | None = None
) -> list[ModelFiles]:
    """Open the built-in model and the given models with `open_model`.

    models: paths or known names, each of which may be preceded by `NAME=`. Raises `WeightsError`, and `SettingsError`
    for a name that a model can't have and for two paths with the same id.
    """
    paths = model_paths(models, weights_dir or default_folder())
    opened = [open_model(one.path, tokenizers, weights_dir, one.id) for one in paths]
    check_ids((files.id, files.own_id, files.path) for files in opened)
    return opened
