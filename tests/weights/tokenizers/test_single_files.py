"""Checkpoints with FLUX's vocabularies and without tokenizers: the package's or the GGUF's generate the same image."""

import logging
from pathlib import Path

import pytest
import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.roster import open_roster
from tests.weights.published import (
    FULL_VOCABULARIES,
    Published,
    generate,
    make_networks,
    write_bfl,
    write_bundle,
    write_gguf,
    write_ggufs,
)
from tests.weights.tokenizers.t5_gguf import T5Fields, t5_fields


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(make_networks(FULL_VOCABULARIES), tmp_path_factory.mktemp("no-tokenizers"))


def image(path: Path, cache: PackedWeightCache) -> bytes:
    return generate(open_checkpoint(path, cache).load(precision=Precision.BF16)).tobytes()


def test_files_without_tokenizers_generate_the_same_image(
    tmp_path: Path, full: Published, cache: PackedWeightCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_bfl(tmp_path / "bfl", full)
    write_bundle(tmp_path / "bundle", full)
    write_ggufs(tmp_path / "gguf", full, t5_fields())
    write_ggufs(tmp_path / "plain", full)

    images = {image(tmp_path / name, cache) for name in ("bfl", "bundle", "gguf", "plain")}

    assert len(images) == 1
    sources = [record.message for record in caplog.records if "tokenizers of" in record.message]
    packaged = "tokenizers of flux/schnell: T5 from the package, CLIP from the package"
    t5_file = tmp_path / "gguf" / "t5-v1_1-xxl-encoder-BF16.gguf"
    of_gguf = f"tokenizers of flux/schnell: T5 from {t5_file}, CLIP from the package"
    assert sources == [packaged, packaged, of_gguf, packaged]


def test_gguf_with_damaged_tokenizer_is_refused_by_loader_and_roster(
    tmp_path: Path, full: Published, cache: PackedWeightCache
) -> None:
    def damaged() -> T5Fields:
        fields = t5_fields()
        fields.scores = None
        return fields

    write_ggufs(tmp_path / "gguf", full, damaged())

    with pytest.raises(
        WeightsCorrupt, match=r"BF16.gguf has a tokenizer that can't be used: .*scores is missing; give"
    ):
        open_checkpoint(tmp_path / "gguf", cache)
    with pytest.raises(
        WeightsCorrupt, match=r"BF16.gguf has a tokenizer that can't be used: .*scores is missing; give"
    ):
        open_roster([str(tmp_path / "gguf")], None, tmp_path)


def test_encoders_of_other_vocabularies_are_refused_with_advice(checkpoint: Path, cache: PackedWeightCache) -> None:
    with pytest.raises(WeightsMissing, match=f"T5 text encoder of {checkpoint} has 540 tokens, .* with --tokenizer"):
        open_checkpoint(checkpoint, cache)


def test_language_model_in_the_folder_gives_no_tokenizer(
    tmp_path: Path, full: Published, cache: PackedWeightCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_bfl(tmp_path / "flux", full)
    of_llama = T5Fields("llama", ["<unk>", "<s>", "</s>"], [0.0, 0.0, 0.0], [2, 3, 3], None)
    tensors = {"token_embd.weight": torch.ones(3, 32), "blk.0.attn_q.weight": torch.ones(32, 32)}
    write_gguf(tmp_path / "flux" / "llm.gguf", tensors, architecture="llama", fields=of_llama)

    t5, _ = open_checkpoint(tmp_path / "flux", cache).tokenizers
    roster = open_roster([str(tmp_path / "flux")], None, tmp_path)

    assert "T5 from the package" in caplog.text
    request = GenerationRequest(prompt="a red apple", seed=1, model="flux/schnell")
    assert roster.tokens(request).used == t5.count("a red apple")
