"""The roster of models: the same ids and prompt lengths as the opened models, without importing torch."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import CATALOG, ModelInfo, Precision, loading_info
from allaprima.engine.build import build_engine
from allaprima.errors import SettingsError, WeightsCorrupt, WeightsMissing
from allaprima.flux import SCHNELL
from allaprima.settings import EngineSettings
from allaprima.weights.builtin_header import TOKENIZER_FILE
from allaprima.weights.open import open_models
from allaprima.weights.prompts.input import PromptInput
from allaprima.weights.roster import ModelRoster, open_roster
from allaprima.weights.tokenizers import PUBLISHED_T5_LENGTH
from allaprima.weights.tokenizers.packaged import packaged_t5
from tests.weights.published import Published, write_bfl, write_ggufs
from tests.weights.thousand_prompts import PROMPTS
from tests.weights.tokenizers.t5_gguf import t5_fields


def request(model: str, prompt: str) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, seed=1, model=model)


@pytest.fixture
def models(folder: Path, checkpoint: Path) -> list[str]:
    return [str(folder), str(checkpoint)]


@pytest.fixture
def roster(models: list[str], published: Published, tmp_path: Path) -> ModelRoster:
    return open_roster(models, published.tokenizers, tmp_path)


def test_catalog_names_and_describes_its_models(roster: ModelRoster) -> None:
    schnell, sketch = CATALOG

    assert roster.models == (
        ModelInfo(sketch.id, "", sketch.name, sketch.description, own_id=sketch.id),
        ModelInfo("tests/tiny", "", "tests/tiny", "", own_id="tests/tiny"),
        ModelInfo(schnell.id, "", schnell.name, schnell.description, own_id=schnell.id),
    )


def test_named_models_are_described_by_what_they_are_and_where_they_come_from(
    folder: Path, checkpoint: Path, published: Published, tmp_path: Path
) -> None:
    models = [f"mine/fast={checkpoint}", f"tests/other={folder}", "mine/sketch=sketch"]

    roster = open_roster(models, published.tokenizers, tmp_path)

    assert roster.models[1:] == (
        ModelInfo("mine/fast", "", "mine/fast", "FLUX.1 [schnell] from checkpoint", own_id="flux/schnell"),
        ModelInfo("tests/other", "", "tests/other", "tests/tiny from tiny", own_id="tests/tiny"),
        ModelInfo("mine/sketch", "", "mine/sketch", "sketch from sketch", own_id="allaprima/sketch"),
    )
    assert str(tmp_path) not in str(roster.models)
    assert roster.tokens(request("mine/fast", "a red apple")).limit == PUBLISHED_T5_LENGTH - 1


def test_roster_and_engine_describe_models_alike(
    folder: Path, checkpoint: Path, published: Published, tmp_path: Path
) -> None:
    models = (str(folder), f"mine/fast={checkpoint}")
    settings = EngineSettings(models=models, tokenizer_dir=published.tokenizers, weights_dir=tmp_path, device="cpu")

    assert build_engine(settings).models == open_roster(models, published.tokenizers, tmp_path).models


def test_file_name_that_is_not_utf_8_is_shown_with_escapes() -> None:
    assert loading_info("mine", "flux/schnell", "fl\udcffx").description == "FLUX.1 [schnell] from fl\\udcffx"


def test_prompt_lengths_equal_those_of_opened_models(
    roster: ModelRoster, models: list[str], published: Published, tmp_path: Path
) -> None:
    opened = open_models(models, published.tokenizers, tmp_path)

    assert [info.id for info in roster.models] == [files.id for files in opened]
    for files in opened:
        prompt_input = PromptInput(files.tokenizers[0], files.reader)
        for prompt in ("a red apple", *PROMPTS[::50], " ".join(PROMPTS[:40])):
            assert roster.tokens(request(files.id, prompt)) == prompt_input.count(prompt)
            assert roster.prompt_warnings(request(files.id, prompt)) == prompt_input.warnings(prompt)


def test_published_t5_length_is_that_of_schnell() -> None:
    assert SCHNELL.t5.length == PUBLISHED_T5_LENGTH


def test_roster_is_ready_after_every_model_is_loaded(roster: ModelRoster) -> None:
    first, *others = (
        replace(info, revision="0" * 16, precision=Precision.BF16, kernels="test") for info in roster.models
    )
    unknown = replace(first, id="tests/unknown")

    roster.update([first, unknown])

    assert roster.models[0] == first
    assert unknown not in roster.models
    assert not roster.is_ready
    roster.update([first, *others])
    assert roster.models == (first, *others)
    assert roster.is_ready


def test_duplicate_model_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")

    with pytest.raises(SettingsError, match="more than one path holds the model tests/tiny"):
        open_roster([str(folder), str(tmp_path / "copy")], None, tmp_path)


def test_missing_or_damaged_tokenizer_is_refused_by_name(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=f"{checkpoint}, which --tokenizer names, holds no T5 tokenizer"):
        open_roster([str(checkpoint)], checkpoint, tmp_path)
    (folder / TOKENIZER_FILE).write_text("garbage")
    with pytest.raises(WeightsCorrupt, match=f"{folder / TOKENIZER_FILE} is not a readable tokenizer"):
        open_roster([str(folder)], None, tmp_path)


def test_roster_reads_tokenizer_of_t5_gguf_or_of_package(tmp_path: Path, published: Published) -> None:
    gguf, single = tmp_path / "gguf", tmp_path / "single"
    write_ggufs(gguf, published, t5_fields(rows=540, count=400))
    write_bfl(single, published)
    prompt = "a red apple on a beach"

    counts = [
        open_roster([str(path)], None, tmp_path).tokens(request("flux/schnell", prompt)) for path in (gguf, single)
    ]

    assert counts[1].used == len(packaged_t5().encode(prompt, add_special_tokens=False).ids)
    assert counts[0] != counts[1]


@pytest.mark.parametrize("is_given", [True, False])
def test_roster_works_without_torch(folder: Path, published: Published, tmp_path: Path, is_given: bool) -> None:
    checkpoint = tmp_path / "gguf"
    write_ggufs(checkpoint, published, t5_fields(rows=540, count=400))
    script = """
import sys
from pathlib import Path
import allaprima.weights.paths
import allaprima.weights.tokenizers
from allaprima.domain.generation import GenerationRequest
from allaprima.weights.roster import open_roster

weights_dir, tokenizers, *models = sys.argv[1:]
roster = open_roster(models, Path(tokenizers) if tokenizers else None, Path(weights_dir))
for info in roster.models:
    print(info.id, roster.tokens(GenerationRequest(prompt="a red apple", seed=1, model=info.id)).limit)
assert "torch" not in sys.modules
"""
    tokenizers = str(published.tokenizers) if is_given else ""
    command = [sys.executable, "-c", script, str(tmp_path), tokenizers, str(folder), str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["allaprima/sketch 31", "tests/tiny 7", "flux/schnell 255"]
