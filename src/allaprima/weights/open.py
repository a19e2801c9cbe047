"""A model by its path, in whatever form it lies there."""

from pathlib import Path

from allaprima.weights.builtin import is_own_folder, open_folder
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.networks import ModelFiles
from allaprima.weights.packed_cache import Shelf
from allaprima.weights.paths import default_folder


def open_model(path: Path, tokenizers: Path | None = None, weights_dir: Path | None = None) -> ModelFiles:
    """Look at a model without reading its tensors: a folder of our own, or a published checkpoint.

    tokenizers: folder of FLUX's two tokenizers, for a checkpoint that brings none. weights_dir: where what is worked
    out from a checkpoint is kept; None: the user's cache folder. Raises `WeightsError`, naming the file.
    """
    if is_own_folder(path):
        return open_folder(path)
    return open_checkpoint(path, Shelf(weights_dir or default_folder()), tokenizers)
