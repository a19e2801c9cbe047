"""A model by its path, in whatever form it lies there."""

from pathlib import Path

from allaprima.weights.checkpoint import open_checkpoint
from allaprima.weights.folder import is_own_folder, open_folder
from allaprima.weights.networks import ModelFiles


def open_model(path: Path, tokenizers: Path | None = None) -> ModelFiles:
    """Look at a model without reading its tensors: a folder of our own, or a published checkpoint.

    tokenizers: folder of FLUX's two tokenizers, for a checkpoint that brings none.
    Raises `WeightsError`, naming the file.
    """
    return open_folder(path) if is_own_folder(path) else open_checkpoint(path, tokenizers)
