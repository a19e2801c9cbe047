"""Paths of models by name, and the search path of tokenizers."""

import os
from pathlib import Path

import pytest

from allaprima.errors import WeightsMissing
from allaprima.weights.paths import (
    RECORD_FILE,
    ModelPath,
    default_folder,
    find_path,
    layout_folder,
    model_paths,
    pulled_folders,
    sketch_folder,
    tokenizer_folders,
)


def pulled(weights_dir: Path, layout: str, time_s: int) -> Path:
    """Create the folder of a layout that was pulled at `time_s`."""
    folder = layout_folder(weights_dir, "flux/schnell", layout)
    folder.mkdir(parents=True)
    (folder / RECORD_FILE).write_text("{}")
    os.utime(folder / RECORD_FILE, (time_s, time_s))
    return folder


def test_name_resolves_to_latest_pulled_layout(tmp_path: Path) -> None:
    older, latest = pulled(tmp_path, "fp8", 1000), pulled(tmp_path, "bf16", 2000)

    assert pulled_folders(tmp_path, "flux/schnell") == [latest, older]
    assert find_path("flux-schnell", tmp_path) == latest


def test_incomplete_layout_is_not_used(tmp_path: Path) -> None:
    layout_folder(tmp_path, "flux/schnell", "bf16").mkdir(parents=True)

    with pytest.raises(WeightsMissing, match="fetch them with `allaprima pull flux/schnell`"):
        find_path("flux/schnell", tmp_path)


def test_existing_path_takes_precedence_over_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sketch").mkdir()
    monkeypatch.chdir(tmp_path)

    assert find_path("sketch", tmp_path) == Path("sketch")


def test_model_paths_start_with_built_in_model_without_duplicates(tmp_path: Path) -> None:
    paths = model_paths(["sketch", str(tmp_path), str(tmp_path / "." / ".."), str(tmp_path)], tmp_path)

    assert paths == tuple(ModelPath(path.resolve()) for path in (sketch_folder(), tmp_path, tmp_path.parent))


def test_tokenizers_are_searched_in_checkpoint_then_pulled_layouts(tmp_path: Path) -> None:
    layout = pulled(tmp_path, "fp8", 1000)
    file = tmp_path / "own" / "flux1-schnell.safetensors"
    file.parent.mkdir()
    file.touch()

    for path in (file, file.parent):
        assert tokenizer_folders(path, None, tmp_path, "flux/schnell") == (file.parent, layout)
    assert tokenizer_folders(file, tmp_path / "given", tmp_path, "flux/schnell") == (tmp_path / "given",)


def test_user_without_home_has_cache_in_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert default_folder() == tmp_path / ".cache" / "allaprima"
