"""Opening models by path: detection of the format, order, and duplicates."""

import shutil
from pathlib import Path

import pytest

from allaprima.errors import SettingsError
from allaprima.weights.builtin import ModelFolder
from allaprima.weights.checkpoint.loader import CheckpointFiles
from allaprima.weights.open import open_model, open_models
from allaprima.weights.roster import open_roster
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


def test_two_checkpoints_are_opened_under_their_names(checkpoint: Path, published: Published, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "other")
    models = [f"mine/fast={checkpoint}", f"fine={tmp_path / 'other'}", str(checkpoint)]

    opened = open_models(models, published.tokenizers, tmp_path)

    assert [(files.id, files.own_id) for files in opened[1:]] == [
        ("mine/fast", "flux/schnell"),
        ("fine", "flux/schnell"),
        ("flux/schnell", "flux/schnell"),
    ]
    assert opened[1].load().id == "mine/fast"


def test_model_folder_has_the_name_that_it_is_given(folder: Path, tmp_path: Path) -> None:
    _, named, own = open_models([f"mine={folder}", str(folder)], None, tmp_path)

    assert (named.id, named.own_id, named.load().id) == ("mine", "tests/tiny", "mine")
    assert (own.id, own.own_id, own.load().id) == ("tests/tiny", "tests/tiny", "tests/tiny")
    assert named.load().revision == own.load().revision


def test_two_unnamed_checkpoints_are_refused_with_the_way_to_name_them(
    checkpoint: Path, published: Published, tmp_path: Path
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")

    for open_all in (open_models, open_roster):
        with pytest.raises(SettingsError) as caught:
            open_all([str(checkpoint), str(other)], published.tokenizers, tmp_path)
        assert caught.value.message == (
            f"engine.models: more than one path holds the model flux/schnell: {checkpoint} and {other}; give each a "
            "name of its own with --model NAME=PATH"
        )


def test_two_models_of_one_name_are_refused_naming_both_paths(
    folder: Path, checkpoint: Path, published: Published, tmp_path: Path
) -> None:
    for open_all in (open_models, open_roster):
        with pytest.raises(SettingsError, match=f"the model mine: {folder} and {checkpoint}; give each"):
            open_all([f"mine={folder}", f"mine={checkpoint}"], published.tokenizers, tmp_path)
        with pytest.raises(SettingsError, match=f"the model tests/tiny: {folder} and {checkpoint}; give each"):
            open_all([str(folder), f"tests/tiny={checkpoint}"], published.tokenizers, tmp_path)


def test_other_model_can_not_have_the_id_of_flux(folder: Path, tmp_path: Path) -> None:
    for open_all in (open_models, open_roster):
        with pytest.raises(SettingsError, match=f"{folder} is the model tests/tiny, so it can't have the name flux"):
            open_all([f"flux/schnell={folder}"], None, tmp_path)
