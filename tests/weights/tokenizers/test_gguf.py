"""The tokenizer in a T5 GGUF file: the ids of the package's, and refusals of fields that are damaged or missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.container import open_container
from allaprima.weights.formats.gguf import GGUFContainer
from allaprima.weights.tokenizers.gguf import has_tokenizer, read_gguf_tokenizer
from allaprima.weights.tokenizers.packaged import packaged_t5
from tests.weights.thousand_prompts import PROMPTS
from tests.weights.tokenizers.t5_gguf import PIECES, T5Fields, t5_fields, write_t5_gguf
from tests.weights.tokenizers.test_packaged import STRANGE

Change = Callable[[T5Fields], object]


def ids(tokenizer: Tokenizer, prompts: tuple[str, ...] = (*PROMPTS, *STRANGE)) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch(list(prompts), add_special_tokens=False)]


def opened(path: Path, change: Change = id, rows: int = PIECES + 128) -> GGUFContainer:
    """Write the fields of T5 v1.1 with a change, and open the file."""
    fields = t5_fields(rows)
    change(fields)
    write_t5_gguf(path / "t5.gguf", fields)
    container = open_container(path / "t5.gguf")
    assert isinstance(container, GGUFContainer)
    return container


def with_sentinels(fields: T5Fields) -> None:
    """Name the sentinels, as a converter does that finds them in added_tokens.json."""
    assert fields.tokens
    assert fields.scores
    assert fields.types
    for number in range(100):
        fields.tokens[PIECES + number] = f"<extra_id_{99 - number}>"
        fields.scores[PIECES + number] = -1000.0
        fields.types[PIECES + number] = 4


def with_signed_charsmap(fields: T5Fields) -> None:
    assert isinstance(fields.charsmap, bytes)
    fields.charsmap = np.frombuffer(fields.charsmap, np.int8)


def with_wide_charsmap(fields: T5Fields) -> None:
    assert isinstance(fields.charsmap, bytes)
    fields.charsmap = list(fields.charsmap)


def without_types_flags_and_ids(fields: T5Fields) -> None:
    fields.types = None
    fields.flags = {}
    fields.ids = {}


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (id, PIECES + 128),
        (id, PIECES + 100),
        (with_sentinels, PIECES + 128),
        (with_sentinels, PIECES + 100),
        (with_signed_charsmap, PIECES + 128),
        (with_wide_charsmap, PIECES + 128),
        (without_types_flags_and_ids, PIECES + 128),
    ],
)
def test_ids_equal_those_of_package(tmp_path: Path, change: Change, rows: int) -> None:
    tokenizer = read_gguf_tokenizer(opened(tmp_path, change, rows))

    assert tokenizer.get_vocab() == packaged_t5().get_vocab()
    assert ids(tokenizer) == ids(packaged_t5())


def test_ids_equal_those_of_package_without_rows_for_sentinels(tmp_path: Path) -> None:
    tokenizer = read_gguf_tokenizer(opened(tmp_path, rows=PIECES))

    assert tokenizer.get_vocab_size() == PIECES
    assert ids(tokenizer, PROMPTS) == ids(packaged_t5(), PROMPTS)


def test_flags_of_other_normalization_are_obeyed(tmp_path: Path) -> None:
    def change(fields: T5Fields) -> None:
        fields.flags = {"add_space_prefix": False, "remove_extra_whitespaces": False}

    tokenizer = read_gguf_tokenizer(opened(tmp_path, change))

    assert tokenizer.encode("red  apple", add_special_tokens=False).tokens[0] == "red"
    plain, spaced = ids(tokenizer, ("red apple", "red  apple"))
    assert plain != spaced


def damage_charsmap(fields: T5Fields) -> None:
    assert isinstance(fields.charsmap, bytes)
    # A unit of the trie gets an offset beyond its end.
    fields.charsmap = fields.charsmap[:4] + b"\xff\xff\xff\x7f" + fields.charsmap[8:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: setattr(f, "model", "llama"), r"tokenizer.ggml.model is 'llama', not 't5'"),
        (lambda f: setattr(f, "model", None), r"tokenizer.ggml.model is missing;"),
        (lambda f: setattr(f, "tokens", None), "tokenizer.ggml.tokens is missing;"),
        (lambda f: f.tokens.__setitem__(7, f.tokens[8]), "tokenizer.ggml.tokens is no list of different tokens"),
        (lambda f: f.tokens.__setitem__(1, "<s>"), "tokenizer.ggml.tokens has no token </s>"),
        (lambda f: f.ids.update(eos_token_id=0), "tokenizer.ggml.eos_token_id is not the id of </s>"),
        (lambda f: setattr(f, "scores", None), "tokenizer.ggml.scores is missing"),
        (lambda f: f.scores.pop(), "tokenizer.ggml.scores has not one finite score for each of 32128 tokens"),
        (lambda f: f.scores.__setitem__(9, float("nan")), "tokenizer.ggml.scores has not one finite score"),
        (lambda f: f.types.pop(), "tokenizer.ggml.token_type has not one known type for each of 32128 tokens"),
        (lambda f: f.types.__setitem__(9, 77), "tokenizer.ggml.token_type has not one known type"),
        (lambda f: setattr(f, "charsmap", None), "tokenizer.ggml.precompiled_charsmap is missing"),
        (lambda f: setattr(f, "charsmap", [1, 2, 300]), "precompiled_charsmap is empty, or has values that are no b"),
        (lambda f: setattr(f, "charsmap", f.charsmap[:5000]), "tokenizer.ggml.precompiled_charsmap is damaged"),
        (damage_charsmap, "tokenizer.ggml.precompiled_charsmap is damaged"),
    ],
)
def test_damaged_or_incomplete_tokenizer_is_refused_by_file_and_field(
    tmp_path: Path, change: Change, reason: str
) -> None:
    container = opened(tmp_path, change)

    assert has_tokenizer(container)
    with pytest.raises(WeightsCorrupt) as caught:
        read_gguf_tokenizer(container)
    assert str(caught.value).startswith(f"{tmp_path / 't5.gguf'} has a tokenizer that can't be used: ")
    assert str(caught.value).endswith("; give the folder of FLUX's tokenizers with --tokenizer")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsCorrupt, match=reason):
        read_gguf_tokenizer(container)


def test_token_that_is_not_utf8_is_refused_by_file_and_field(tmp_path: Path) -> None:
    container = opened(tmp_path, lambda fields: fields.tokens.__setitem__(9, b"\xff\xfe"))

    with pytest.raises(WeightsCorrupt, match=r"t5.gguf has a tokenizer .*: the array tokenizer.ggml.tokens can't be"):
        read_gguf_tokenizer(container)


@pytest.mark.parametrize("model", [None, "none", "no_vocab"])
def test_file_without_tokenizer_has_none(tmp_path: Path, model: str | None) -> None:
    fields = None if model is None else T5Fields(model, None, None, None, None, {}, {})
    write_t5_gguf(tmp_path / "t5.gguf", fields)

    assert not has_tokenizer(open_container(tmp_path / "t5.gguf"))
    assert not has_tokenizer(None)
