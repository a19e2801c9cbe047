"""Reads the header of the built-in model format without importing torch. See `builtin` for the format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.paths import WEIGHT_ENDINGS

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = "allaprima-1"

T = TypeVar("T")


def read_header(folder: Path, parse_config: Callable[[Any], T]) -> tuple[str, T]:
    """Return a model's id, and its configuration as returned by `parse_config`.

    parse_config: receives the configuration's JSON value. Raises `WeightsMissing` for a missing file, and
    `WeightsCorrupt` for an unreadable file, another format, or a configuration that `parse_config` can't parse; both
    name the file.
    """
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise WeightsMissing(f"the model folder {folder} has no file {name}")
    path = folder / WEIGHTS_FILE
    try:
        metadata = _metadata(path)
    except (SafetensorError, OSError) as exc:
        raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc
    if metadata.get("format") != FORMAT:
        raise WeightsCorrupt(f"{path} was not written by allaprima: its header lacks format {FORMAT}")
    try:
        return metadata["id"], parse_config(json.loads(metadata["config"]))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:
        raise WeightsCorrupt(f"{path} has an invalid header: {exc}") from exc


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder in the built-in format, complete or not.

    The folder is in this format if the header of its weights names the format, or if it has a word list and no weights
    of another format.
    """
    if (path / TOKENIZER_FILE).is_file() and not _has_other_weights(path):
        return True
    try:
        return _metadata(path / WEIGHTS_FILE).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _metadata(path: Path) -> dict[str, str]:
    # With the framework "pt" safetensors would import torch.
    with safe_open(path, "np") as opened:
        return opened.metadata() or {}


def _has_other_weights(folder: Path) -> bool:
    return any(file.name.lower().endswith(WEIGHT_ENDINGS) and file.name != WEIGHTS_FILE for file in folder.iterdir())
