"""`allaprima doctor PATH`: what each file of a model is, what is used, what is missing, and which precision fits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

from allaprima.weights.paths import RECORD_FILE, layout_folder, sketch_folder
from tests.weights.published import Published, make_networks, write_bfl, write_diffusers, write_tokenizers

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(folder)
    return Published(make_networks(), folder)


@pytest.fixture
def checkpoint(tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose small vocabularies are not those of the package's tokenizers."""
    monkeypatch.setenv("ALLAPRIMA_ENGINE__TOKENIZER_DIR", str(published.tokenizers))
    write_bfl(tmp_path / "checkpoint", published)
    return tmp_path / "checkpoint"


def table(result: Result) -> dict[str, tuple[str, str]]:
    """Return the printed rows: what each file is and its use, by the file."""
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def test_files_of_a_complete_model_are_used_and_precisions_fit(run: Run, checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("a model")
    save_file({"other": torch.ones(2, 2)}, checkpoint / "other.safetensors")
    result = run("doctor", str(checkpoint))

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == str(checkpoint)
    rows = table(result)
    assert rows["flux1-schnell.safetensors"] == ("transformer, BF16, 937.6 kB", "used")
    assert rows["ae.safetensors"] == ("autoencoder, F32, 2.6 MB", "used")
    assert rows["other.safetensors"][1] == "not used: holds no tensors of FLUX.1 [schnell]"
    assert rows["(other files)"] == ("1 that are no weights by their names", "not used")
    assert rows["(tokenizers)"][0].startswith("T5 from ")
    assert rows["int8"][1] == "fits"
    assert rows["fp8"][1] == "requires a GPU with float8 matrix products"
    assert "refused" not in result.stdout


def test_missing_component_is_a_row_and_the_reason_of_the_refusal(run: Run, checkpoint: Path) -> None:
    (checkpoint / "t5xxl_fp16.safetensors").rename(checkpoint / "t5xxl_fp16.safetensors.part")
    result = run("doctor", str(checkpoint))

    assert result.exit_code == 1
    rows = table(result)
    assert rows["-"] == ("T5 text encoder (such as t5xxl_fp16.safetensors)", "missing")
    assert rows["t5xxl_fp16.safetensors.part"] == ("not opened", "not used: an unfinished download")
    assert "int8" not in rows
    assert result.stdout.splitlines()[-1].startswith(f"refused: {checkpoint} holds no T5 text encoder")


def test_two_files_of_one_component_are_both_named(run: Run, checkpoint: Path) -> None:
    shutil.copy(checkpoint / "clip_l.safetensors", checkpoint / "clip_l_copy.safetensors")
    result = run("doctor", str(checkpoint))

    assert result.exit_code == 1
    rows = table(result)
    for name in ("clip_l.safetensors", "clip_l_copy.safetensors"):
        assert rows[name][1] == "not used: holds the clip, as another file does"
    assert "-" not in rows


def test_shards_are_one_row_with_their_number(run: Run, tmp_path: Path, published: Published) -> None:
    write_diffusers(tmp_path, published)
    shutil.copytree(published.tokenizers, tmp_path, dirs_exist_ok=True)
    rows = table(run("doctor", str(tmp_path)))
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    assert rows[index] == ("transformer, BF16, 10 shards, 941.4 kB", "used")


def test_file_of_a_pulled_layout_is_shown_with_its_path(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLAPRIMA_ENGINE__WEIGHTS_DIR", str(tmp_path))
    pulled = layout_folder(tmp_path, "flux/schnell", "bf16")
    pulled.mkdir(parents=True)
    (pulled / RECORD_FILE).write_text("{}")
    (checkpoint / "ae.safetensors").rename(pulled / "ae.safetensors")
    rows = table(run("doctor", str(checkpoint / "flux1-schnell.safetensors")))
    assert rows[str(pulled / "ae.safetensors")] == ("autoencoder, of a pulled layout", "used")


def test_tokenizers_of_another_vocabulary_are_the_reason_of_the_refusal(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALLAPRIMA_ENGINE__TOKENIZER_DIR")
    result = run("doctor", str(checkpoint))
    assert result.exit_code == 1
    assert "has 540 tokens, and the tokenizer in the package has 32100" in result.stdout


def test_report_is_printed_as_json(run: Run, checkpoint: Path) -> None:
    found = json.loads(run("doctor", str(checkpoint), "--json").stdout)
    assert (found["is_able"], found["error"], found["device"]) == (True, None, "cpu")
    assert {"file": "clip_l.safetensors", "holds": "CLIP text encoder, BF16, 200.8 kB", "use": "used"} in found["files"]
    assert "int8" in [row["precision"] for row in found["rows"]]


def test_model_in_the_built_in_format_is_examined_by_path_and_name(run: Run) -> None:
    for model in (str(sketch_folder()), "sketch"):
        result = run("doctor", model)
        assert result.exit_code == 0
        assert table(result)["model.safetensors"] == ("the model allaprima/sketch in the built-in format", "used")


def test_missing_path_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("doctor", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert f"there is no file or folder {tmp_path / 'nowhere'}" in result.stderr


def test_doctor_of_the_machine_names_unused_files_of_the_configured_models(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"other": torch.ones(2, 2)}, checkpoint / "other.safetensors")
    monkeypatch.setenv("ALLAPRIMA_ENGINE__MODELS", json.dumps([str(checkpoint)]))
    shown = run("doctor").stdout
    assert f"not used: {checkpoint / 'other.safetensors'} holds no tensors of FLUX.1 [schnell]" in shown
