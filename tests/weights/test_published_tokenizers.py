"""FLUX's tokenizers against those of transformers, from the same files."""

from pathlib import Path

import pytest

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.tokenizers import PromptTokenizer, published_tokenizers
from tests.weights.published import CONFIG, Published
from tests.weights.thousand_prompts import PROMPTS


@pytest.fixture(scope="module")
def pair(published: Published) -> tuple[PromptTokenizer, PromptTokenizer]:
    return published_tokenizers((published.tokenizers,), CONFIG)


def test_prompt_list_has_1000_distinct_prompts() -> None:
    assert len(set(PROMPTS)) == 1000


def test_t5_ids_equal_those_of_transformers(
    published: Published, pair: tuple[PromptTokenizer, PromptTokenizer]
) -> None:
    from transformers import T5TokenizerFast

    file = published.tokenizers / "tokenizer_2" / "tokenizer.json"
    theirs = T5TokenizerFast(tokenizer_file=str(file), extra_ids=0)
    long = " ".join(PROMPTS[:60])

    for prompt in (*PROMPTS, "", long):
        wanted = theirs(prompt, padding="max_length", max_length=256, truncation=True).input_ids
        assert list(pair[0].encode(prompt).ids) == wanted, prompt
    assert pair[0].encode(long).over
    assert not pair[0].encode(PROMPTS[0]).over


def test_clip_ids_equal_those_of_transformers(
    published: Published, pair: tuple[PromptTokenizer, PromptTokenizer]
) -> None:
    from transformers import CLIPTokenizer

    folder = published.tokenizers / "tokenizer"
    theirs = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))

    for prompt in (*PROMPTS, ""):
        wanted = theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert list(pair[1].encode(prompt).ids) == wanted, prompt


def test_missing_tokenizers_are_refused_with_advice(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsMissing, match=f"{tmp_path} holds no tokenizers; .* with --tokenizer"):
        published_tokenizers((tmp_path,), CONFIG)
    assert published_tokenizers((tmp_path, published.tokenizers), CONFIG)[0].encode("red").ids


def test_invalid_tokenizer_file_is_refused_by_name(tmp_path: Path, published: Published) -> None:
    for name in ("tokenizer", "tokenizer_2"):
        (tmp_path / name).mkdir()
        for file in (published.tokenizers / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer" / "merges.txt").write_text("no merges here")
    with pytest.raises(WeightsCorrupt, match=f"{tmp_path / 'tokenizer'} is not a readable tokenizer"):
        published_tokenizers((tmp_path,), CONFIG)
    (tmp_path / "tokenizer_2" / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsCorrupt, match=r"tokenizer.json is not a readable tokenizer"):
        published_tokenizers((tmp_path,), CONFIG)
