"""A refused `allaprima serve` prints the reason in one sentence and creates no data folder."""

import shutil
import socket
from pathlib import Path

import pytest

from allaprima.weights.paths import sketch_folder
from tests.cli.conftest import Run

FILES = ("model.safetensors", "tokenizer.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose files are garbage."""
    made = tmp_path / "model"
    made.mkdir()
    for name in FILES:
        (made / name).write_bytes(b"garbage")
    return made


@pytest.mark.parametrize("missing", FILES)
def test_missing_file_in_model_folder_is_named(run: Run, folder: Path, tmp_path: Path, missing: str) -> None:
    shutil.copy(sketch_folder() / "model.safetensors", folder)
    (folder / missing).unlink()

    result = run("serve", "--port", 0, "--data-dir", tmp_path / "data", "--model", folder)

    assert result.exit_code == 2
    assert result.stderr == f"allaprima starts\nerror: the model folder {folder} has no file {missing}\n"
    assert not (tmp_path / "data").exists()


def test_model_folder_with_garbage_is_refused_by_file(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("serve", "--port", 0, "--data-dir", tmp_path / "data", "--model", folder)

    assert result.exit_code == 2
    assert f"error: {folder / 'model.safetensors'} is cut short: it has 7 bytes" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["nowhere", "flux/schnell"])
def test_model_without_weights_is_refused_by_name(run: Run, tmp_path: Path, name: str) -> None:
    result = run("serve", "--port", 0, "--data-dir", tmp_path / "data", "--model", name)

    assert result.exit_code == 2
    assert name in result.stderr
    assert not (tmp_path / "data").exists()


def test_address_of_other_machine_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    result = run("serve", "--host", "192.0.2.1", "--port", 8000, "--data-dir", tmp_path / "data")

    assert result.exit_code == 2
    assert "can't listen on 192.0.2.1:8000" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_in_use_is_refused_by_name(run: Run, tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        try:
            other.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no address {host}")
        other.listen()
        port = other.getsockname()[1]

        result = run("serve", "--host", host, "--port", port, "--data-dir", tmp_path / "data")

    assert result.exit_code == 2
    assert f"can't listen on {host}:{port}" in result.stderr
    assert "--port" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("model", ["Mine=x", "sketch=x", "mine=", "flux-schnell=x", "a/b/c=x"])
def test_name_that_a_model_can_not_have_is_refused(run: Run, tmp_path: Path, model: str) -> None:
    result = run("serve", "--port", 0, "--data-dir", tmp_path / "data", "--model", model)

    assert result.exit_code == 2
    assert f"error: the model '{model}' " in result.stderr
    assert not (tmp_path / "data").exists()


def test_two_models_of_one_name_are_refused_naming_both_paths(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(sketch_folder(), tmp_path / "copy")

    result = run("serve", "--port", 0, "--model", "mine=sketch", "--model", f"mine={copy}")

    assert result.exit_code == 2
    assert f"holds the model mine: {sketch_folder().resolve()} and {copy}; give each" in result.stderr
