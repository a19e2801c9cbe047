"""The package's vocabularies: the published ones, and the same ids as transformers."""

import gzip
import hashlib
import json
from pathlib import Path

from allaprima.flux import SCHNELL
from allaprima.weights.tokenizers import find_tokenizers
from allaprima.weights.tokenizers.packaged import (
    CLIP_FILE,
    FOLDER,
    T5_FILE,
    clip_vocabulary,
    packaged_clip,
    packaged_t5,
    read_merges,
)
from tests.weights.thousand_prompts import PROMPTS
from tests.weights.tokenizers.t5_gguf import official

#: Prompts with special tokens, white space, and characters that the tokenizers normalize or don't know.
STRANGE = (
    "",
    "a</s>b",
    "<pad>a <unk> b",
    "a <extra_id_5> b",
    "  a   red \t apple \n\n ",
    "ﬁsh ① Ⅷ Å é",
    "👩‍🎤🏽 on a 🏖️",
    "a\x00b\x1fc",
    "[PAD32005] <|endoftext|> x",
    "x" * 500,
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_t5_vocabulary_is_published_one_with_prepend_scheme_of_flux() -> None:
    tokenizer = official()
    assert tokenizer["pre_tokenizer"]["prepend_scheme"] == "first"

    tokenizer["pre_tokenizer"]["prepend_scheme"] = "always"

    published = json.dumps(tokenizer, indent=2, ensure_ascii=False).encode()
    assert sha256(published) == "f5dfec163765e18e270537fe896c49f5fad74db1525641d9b255a3008b999596"


def test_clip_vocabulary_and_merges_are_published_ones() -> None:
    merges = gzip.decompress((FOLDER / CLIP_FILE).read_bytes())
    vocabulary = clip_vocabulary(read_merges(merges.decode()))

    assert sha256(merges) == "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
    published = json.dumps(vocabulary, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert sha256(published.encode()) == "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"
    assert packaged_clip().get_vocab() == vocabulary
    assert (len(vocabulary), vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]) == (49408, 49406, 49407)


def test_vocabularies_are_under_1_mb_and_have_no_time_stamp() -> None:
    files = [FOLDER / T5_FILE, FOLDER / CLIP_FILE]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    # The time is at byte 4 of a gzip file.
    assert all(file.read_bytes()[4:8] == bytes(4) for file in files)


def test_sizes_are_those_of_flux_embeddings() -> None:
    assert packaged_t5().get_vocab_size() == 32_100 <= SCHNELL.t5.vocab_size
    assert packaged_clip().get_vocab_size() == SCHNELL.clip.vocab_size


def test_t5_ids_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import T5TokenizerFast

    file = tmp_path / "tokenizer.json"
    file.write_bytes(gzip.decompress((FOLDER / T5_FILE).read_bytes()))
    theirs = T5TokenizerFast(tokenizer_file=str(file), extra_ids=0)
    ours, _ = find_tokenizers(None, (tmp_path,)).load(SCHNELL)

    for prompt in (*PROMPTS, *STRANGE, " ".join(PROMPTS[:60])):
        wanted = theirs(prompt, padding="max_length", max_length=256, truncation=True).input_ids
        assert list(ours.encode(prompt).ids) == wanted, prompt


def test_clip_ids_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    merges = gzip.decompress((FOLDER / CLIP_FILE).read_bytes())
    (tmp_path / "merges.txt").write_bytes(merges)
    (tmp_path / "vocab.json").write_text(json.dumps(clip_vocabulary(read_merges(merges.decode()))))
    theirs = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    _, ours = find_tokenizers(None, (tmp_path,)).load(SCHNELL)

    for prompt in (*PROMPTS, *STRANGE):
        wanted = theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert list(ours.encode(prompt).ids) == wanted, prompt
