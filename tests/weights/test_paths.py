"""Paths of models by name, and the search path of tokenizers."""

import os
from pathlib import Path

import pytest

from allaprima.errors import SettingsError, WeightsMissing
from allaprima.weights.paths import (
    RECORD_FILE,
    ModelPath,
    default_folder,
    find_model,
    find_path,
    layout_folder,
    model_paths,
    parse_model,
    pulled_folders,
    sketch_folder,
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


def test_model_may_have_a_name_before_its_path(tmp_path: Path) -> None:
    folder = pulled(tmp_path, "bf16", 1000)
    models = [
        f"mine/fast={tmp_path}",
        f"other={tmp_path}",
        f"again={tmp_path / '.'}",
        "flux/schnell",
        "q4=flux-schnell",
    ]

    assert model_paths(models, tmp_path)[1:] == (
        ModelPath(tmp_path, "mine/fast"),
        ModelPath(tmp_path, "other"),
        ModelPath(tmp_path, "again"),
        ModelPath(folder),
        ModelPath(folder, "q4"),
    )


def test_model_given_twice_under_one_name_is_one_model(tmp_path: Path) -> None:
    assert model_paths([f"a={tmp_path}", f"a={tmp_path / '.'}"], tmp_path)[1:] == (ModelPath(tmp_path, "a"),)


@pytest.mark.parametrize("name", ["a=b", "=", "=a", "a=", "a=b=c", "flux/schnell=x"])
def test_existing_path_with_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert parse_model(name) == (None, name)
    assert parse_model(f"mine={name}") == ("mine", name)


def test_path_may_contain_equals_signs_after_the_name() -> None:
    assert parse_model("mine=/models/step=4/a=b") == ("mine", "/models/step=4/a=b")


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a b", "A", "Fast", "..", ".", "a/..", "../a", "/a", "a/", "a//b", "a/b/c", "~/a", "C:", "a,b", "a?b",
        "a#b", "a%20b", "a\n", "\x00", "ä", "-a", "a" * 65, "/models/a",
    ],
    ids=ascii,
)  # fmt: skip
def test_name_that_no_route_can_address_is_refused(name: str) -> None:
    with pytest.raises(
        SettingsError, match="in NAME=PATH the name must be a name or owner/name of at most 64"
    ) as caught:
        parse_model(f"{name}=/models/flux")

    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "owner"),
    [("allaprima/sketch", "allaprima/sketch"), ("sketch", "allaprima/sketch"), ("flux-schnell", "flux/schnell"),
     ("flux.1-schnell", "flux/schnell")],
)  # fmt: skip
def test_name_of_another_model_is_refused(name: str, owner: str) -> None:
    with pytest.raises(SettingsError, match=f"can't have the name {name}, which belongs to {owner}; choose another"):
        parse_model(f"{name}=/models/flux")


def test_home_folder_is_expanded_after_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert parse_model("mine=~/flux") == ("mine", str(tmp_path / "flux"))
    assert parse_model("mine=a/~") == ("mine", "a/~")


def test_home_folder_is_expanded_in_a_path_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of the settings is not expanded by a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "flux").mkdir()

    assert find_path("~/flux", tmp_path) == tmp_path / "flux"
    assert find_path("~/nothing", tmp_path) == tmp_path / "nothing"


def test_existing_path_that_begins_with_a_tilde_is_that_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "~" / "flux").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert find_path("~/flux", tmp_path) == Path("~/flux")


@pytest.mark.parametrize("path", ["x" * 300, "/" + "x" * 5000, "a\0b", "\ud800", "a red apple\n" * 100], ids=ascii)
def test_text_that_can_be_no_path_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(WeightsMissing, match="can't be read") as caught:
        find_path(path, tmp_path)

    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_default_id_of_checkpoints_is_a_name() -> None:
    assert parse_model("flux/schnell=/models/flux") == ("flux/schnell", "/models/flux")


def test_name_without_path_is_refused() -> None:
    with pytest.raises(SettingsError, match="'fast=' has a name and no path; give NAME=PATH"):
        parse_model("fast=")


@pytest.mark.parametrize("model", ["a" * 5000, "mine=" + "a" * 5000, "a\0b", "a\0=b"], ids=range(4))
def test_path_that_the_system_refuses_is_no_error_of_the_program(tmp_path: Path, model: str) -> None:
    with pytest.raises((SettingsError, WeightsMissing)) as caught:
        find_model(model, (), tmp_path)

    assert caught.value.message.isprintable()


def test_configured_model_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configured = ("/models/plain", "fast=/models/fast", "mine/other=/models/other")

    assert find_model("fast", configured, tmp_path) == ModelPath(Path("/models/fast"), "fast")
    assert find_model("mine/other", configured, tmp_path) == ModelPath(Path("/models/other"), "mine/other")
    assert find_model("unknown", configured, tmp_path) == ModelPath(Path("unknown"))
    (tmp_path / "fast").mkdir()
    assert find_model("fast", configured, tmp_path) == ModelPath(Path("fast"))


def test_link_to_a_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").touch()
    link = tmp_path / "flux1-schnell.safetensors"
    link.symlink_to(tmp_path / "blobs" / "0a1b")

    assert model_paths([str(link), str(tmp_path / "blobs" / "0a1b")], tmp_path)[1:] == (ModelPath(link),)


def test_user_without_home_has_cache_in_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert default_folder() == tmp_path / ".cache" / "allaprima"
