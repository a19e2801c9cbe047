"""Opening models by path: detection of the format, order, and duplicates."""

import shutil
from pathlib import Path

import pytest

from allaprima.errors import SettingsError
from allaprima.weights.builtin import ModelFolder
from allaprima.weights.checkpoint.loader import CheckpointFiles
from allaprima.weights.open import open_model, open_models
from tests.weights.published import Published


def test_format_is_recognised_by_content(folder: Path, checkpoint: Path, published: Published, tmp_path: Path) -> None:
    assert isinstance(open_model(folder), ModelFolder)
    assert isinstance(open_model(checkpoint, published.tokenizers, tmp_path), CheckpointFiles)


def test_built_in_model_is_opened_first(folder: Path, checkpoint: Path, published: Published, tmp_path: Path) -> None:
    opened = open_models([str(folder), str(checkpoint)], published.tokenizers, tmp_path)

    assert [files.id for files in opened] == ["allaprima/sketch", "tests/tiny", "flux/schnell"]


def test_duplicate_model_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")

    with pytest.raises(SettingsError, match="more than one path holds the model tests/tiny"):
        open_models([str(folder), str(tmp_path / "copy")], None, tmp_path)
