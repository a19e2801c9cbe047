"""Where FLUX's tokenizers come from: the order of their sources, the log's words, and the refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.flux import SCHNELL, ModelConfig
from allaprima.weights.formats.container import Container, open_container
from allaprima.weights.tokenizers import PromptTokenizer, find_tokenizers
from tests.weights.published import CONFIG, Published
from tests.weights.thousand_prompts import PROMPTS
from tests.weights.tokenizers.t5_gguf import t5_fields, write_t5_gguf


@pytest.fixture(scope="module")
def pair(published: Published) -> tuple[PromptTokenizer, PromptTokenizer]:
    return find_tokenizers(None, (published.tokenizers,)).load(CONFIG)


@pytest.fixture
def own(tmp_path: Path, published: Published) -> Path:
    """A folder with both tokenizers, whose name has spaces."""
    return Path(shutil.copytree(published.tokenizers, tmp_path / "my own FLUX"))


@pytest.fixture(scope="module")
def t5_gguf(tmp_path_factory: pytest.TempPathFactory) -> Container:
    path = tmp_path_factory.mktemp("gguf") / "t5.gguf"
    write_t5_gguf(path, t5_fields())
    return open_container(path)


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


# Order ----------------------------------------------------------------------------------------------------------------


def test_given_folder_is_used_before_all_others(
    tmp_path: Path, own: Path, published: Published, t5_gguf: Container
) -> None:
    found = find_tokenizers(own, (published.tokenizers,), t5_gguf)

    assert str(found) == f"T5 from {own}/tokenizer_2/tokenizer.json, CLIP from {own}/tokenizer"


def test_models_folders_are_used_in_order_before_gguf(
    tmp_path: Path, own: Path, published: Published, t5_gguf: Container
) -> None:
    found = find_tokenizers(None, (tmp_path, own, published.tokenizers), t5_gguf)

    assert str(found) == f"T5 from {own}/tokenizer_2/tokenizer.json, CLIP from {own}/tokenizer"


def test_gguf_of_t5_is_used_before_package(tmp_path: Path, t5_gguf: Container) -> None:
    found = find_tokenizers(None, (tmp_path,), t5_gguf)

    assert str(found) == f"T5 from {t5_gguf.path}, CLIP from the package"
    packaged = find_tokenizers(None, (tmp_path,)).load(SCHNELL)
    assert found.load(SCHNELL)[0].encode(PROMPTS[3]) == packaged[0].encode(PROMPTS[3])


def test_package_is_used_without_any_file(tmp_path: Path) -> None:
    write_t5_gguf(tmp_path / "t5.gguf", None)
    found = find_tokenizers(None, (tmp_path,), open_container(tmp_path / "t5.gguf"))

    assert str(found) == "T5 from the package, CLIP from the package"
    assert found.t5().encode("a red apple") == found.load(SCHNELL)[0].encode("a red apple")


def test_folder_with_one_tokenizer_gives_that_one(tmp_path: Path, own: Path) -> None:
    shutil.rmtree(own / "tokenizer")
    assert str(find_tokenizers(None, (own,))) == f"T5 from {own}/tokenizer_2/tokenizer.json, CLIP from the package"

    other = tmp_path / "other"
    (other / "tokenizer").mkdir(parents=True)
    (other / "tokenizer" / "tokenizer.json").write_text("{}")
    found = find_tokenizers(None, (other, own))
    assert str(found) == f"T5 from {own}/tokenizer_2/tokenizer.json, CLIP from {other}/tokenizer/tokenizer.json"


def test_unread_sentencepiece_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_2" / "spiece.model"
    file.parent.mkdir()
    file.write_bytes(b"model")

    found = find_tokenizers(None, (tmp_path,))

    note = f"{file} is not read without a tokenizer.json in the same folder"
    assert str(found) == f"T5 from the package ({note}), CLIP from the package"


@pytest.mark.parametrize(("kept", "missing"), [("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")])
def test_unread_half_of_clip_tokenizer_is_named(own: Path, kept: str, missing: str) -> None:
    (own / "tokenizer" / missing).unlink()

    found = find_tokenizers(None, (own,))

    note = f"{own}/tokenizer/{kept} is not read without a {missing} in the same folder"
    assert str(found).endswith(f"CLIP from the package ({note})")


# Layouts of a given folder --------------------------------------------------------------------------------------------


def same(folder: Path, pair: tuple[PromptTokenizer, PromptTokenizer]) -> bool:
    """Whether a given folder's tokenizers give the ids of a pair."""
    found = find_tokenizers(folder, ()).load(CONFIG)
    return all(
        a.encode(prompt) == b.encode(prompt) for prompt in PROMPTS[::100] for a, b in zip(found, pair, strict=True)
    )


def test_given_folder_with_files_in_itself_is_read(own: Path, pair: tuple[PromptTokenizer, PromptTokenizer]) -> None:
    for file in (*(own / "tokenizer").iterdir(), own / "tokenizer_2" / "tokenizer.json"):
        file.rename(own / file.name)
    assert same(own, pair)


def test_given_folder_with_whole_clip_file_is_read(own: Path, pair: tuple[PromptTokenizer, PromptTokenizer]) -> None:
    pair[1].tokenizer.save(str(own / "tokenizer" / "tokenizer.json"))
    (own / "tokenizer" / "vocab.json").unlink()
    assert same(own, pair)
    (own / "tokenizer" / "tokenizer.json").rename(own / "tokenizer.json")
    assert same(own, pair)


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        ("tokenizer_2", r"holds no T5 tokenizer \(tokenizer_2/tokenizer.json\); copy"),
        ("tokenizer", r"holds no CLIP tokenizer \(tokenizer/vocab.json with merges.txt\); copy"),
    ],
)
def test_given_folder_without_a_tokenizer_is_refused_by_what_is_missing(own: Path, removed: str, reason: str) -> None:
    shutil.rmtree(own / removed)
    with pytest.raises(WeightsMissing, match=f"{own}, which --tokenizer names, {reason}"):
        find_tokenizers(own, (own,))


def test_given_path_that_is_no_folder_is_refused(own: Path) -> None:
    for path in (own / "nowhere", own / "tokenizer" / "vocab.json"):
        with pytest.raises(WeightsMissing, match=f"{path}, which --tokenizer names, is no folder"):
            find_tokenizers(path, (own,))


def test_given_folder_of_one_tokenizer_is_refused_by_what_is_missing(own: Path) -> None:
    with pytest.raises(WeightsMissing, match="holds no CLIP tokenizer"):
        find_tokenizers(own / "tokenizer_2", (own,))
    with pytest.raises(WeightsMissing, match="holds no T5 tokenizer"):
        find_tokenizers(own / "tokenizer", (own,))


# Refusals -------------------------------------------------------------------------------------------------------------


def test_invalid_tokenizer_file_is_refused_by_name(own: Path) -> None:
    (own / "tokenizer" / "merges.txt").write_text("no merges here")
    with pytest.raises(WeightsCorrupt, match=f"{own / 'tokenizer'} is not a readable tokenizer"):
        find_tokenizers(None, (own,)).load(CONFIG)
    (own / "tokenizer_2" / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsCorrupt, match=r"tokenizer.json is not a readable tokenizer"):
        find_tokenizers(None, (own,)).load(CONFIG)


def test_exchanged_tokenizers_are_refused_by_name(own: Path, pair: tuple[PromptTokenizer, PromptTokenizer]) -> None:
    file = own / "tokenizer_2" / "tokenizer.json"
    pair[1].tokenizer.save(str(file))
    with pytest.raises(WeightsCorrupt, match=f"{file} is not FLUX's tokenizer: it has no token <pad>"):
        find_tokenizers(None, (own,)).t5()


def test_clip_vocabulary_without_special_tokens_is_refused(own: Path) -> None:
    file = own / "tokenizer" / "vocab.json"
    vocabulary = json.loads(file.read_text())
    file.write_text(json.dumps({text: number for text, number in vocabulary.items() if text != "<|startoftext|>"}))
    with pytest.raises(WeightsCorrupt, match=r"it has no token <\|startoftext\|>"):
        find_tokenizers(None, (own,)).load(CONFIG)


def with_vocabularies(t5: int, clip: int) -> ModelConfig:
    return replace(SCHNELL, t5=replace(SCHNELL.t5, vocab_size=t5), clip=replace(SCHNELL.clip, vocab_size=clip))


def test_ids_beyond_vocabulary_of_encoder_are_refused(own: Path, tmp_path: Path, t5_gguf: Container) -> None:
    config = with_vocabularies(100, 540)
    with pytest.raises(
        WeightsCorrupt, match=r"tokenizer_2/tokenizer.json has token ids up to 299, but the .* only 100"
    ):
        find_tokenizers(None, (own,)).load(config)
    with pytest.raises(WeightsCorrupt, match=r"t5.gguf has token ids up to 32099, but the encoder has only 100 tokens"):
        find_tokenizers(None, (tmp_path,), t5_gguf).load(config)


@pytest.mark.parametrize(
    ("t5", "clip", "reason"),
    [
        (540, 49408, "the T5 text encoder of .* has 540 tokens, and the tokenizer in the package has 32100"),
        (256_384, 49408, "the T5 text encoder of .* has 256384 tokens, and the tokenizer in the package has 32100"),
        (32_128, 49409, "the CLIP text encoder of .* has 49409 tokens, and the tokenizer in the package has 49408"),
        (32_128, 540, "the CLIP text encoder of .* has 540 tokens, and the tokenizer in the package has 49408"),
    ],
)
def test_encoder_of_another_vocabulary_than_packages_is_refused(
    tmp_path: Path, t5: int, clip: int, reason: str
) -> None:
    with pytest.raises(WeightsMissing, match=f"{reason}; give .* with --tokenizer"):
        find_tokenizers(None, (tmp_path,)).load(with_vocabularies(t5, clip))


@pytest.mark.parametrize("rows", [32_100, 32_128])
def test_encoder_with_or_without_unused_rows_is_read(tmp_path: Path, rows: int) -> None:
    assert find_tokenizers(None, (tmp_path,)).load(with_vocabularies(rows, 49408))
