"""Token ids of the built-in model: special tokens, truncation, unknown words and word separators."""

import pytest
from tokenizers import Tokenizer

from allaprima.flux import ModelConfig
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.tokenizers import END, PAD, UNKNOWN, PromptTokenizer, word_tokenizers

LENGTH = 8
VOCABULARY = 16
BEGIN_CLIP, END_CLIP = 14, 15
FULL_WIDTH = " ".join("".join(chr(ord(letter) + 0xFEE0) for letter in word) for word in ("RED", "apple"))


@pytest.fixture
def ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The id of every word."""
    return tokenizer.get_vocab()


@pytest.fixture
def pair(tokenizer: Tokenizer, config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
    return word_tokenizers(tokenizer, config)


@pytest.fixture
def t5(pair: tuple[PromptTokenizer, PromptTokenizer]) -> PromptTokenizer:
    return pair[0]


@pytest.fixture
def clip(pair: tuple[PromptTokenizer, PromptTokenizer]) -> PromptTokenizer:
    return pair[1]


def test_t5_ids_are_words_end_token_and_padding(t5: PromptTokenizer, ids: dict[str, int]) -> None:
    tokens = t5.encode("a red apple")

    assert tokens.ids == (ids["a"], ids["red"], ids["apple"], END, PAD, PAD, PAD, PAD)
    assert not tokens.over


def test_clip_ids_are_begin_token_words_and_end_tokens(clip: PromptTokenizer, ids: dict[str, int]) -> None:
    tokens = clip.encode("a red apple")

    assert tokens.ids == (BEGIN_CLIP, ids["a"], ids["red"], ids["apple"], *[END_CLIP] * 4)
    assert not tokens.over


def test_clip_end_token_is_largest_id(clip: PromptTokenizer, ids: dict[str, int]) -> None:
    tokens = clip.encode("the red apple on a beach")

    assert clip.end_id == VOCABULARY - 1 == max(tokens.ids)
    assert clip.end_id > max(ids.values())


def test_empty_prompt_is_padded_to_full_length(t5: PromptTokenizer, clip: PromptTokenizer) -> None:
    assert t5.encode("").ids == (END, *[PAD] * 7)
    assert clip.encode("").ids == (BEGIN_CLIP, *[END_CLIP] * 7)


@pytest.mark.parametrize(("words", "is_truncated"), [(6, False), (7, False), (8, True), (500, True)])
def test_t5_reports_truncation_and_keeps_end_token(
    t5: PromptTokenizer, ids: dict[str, int], words: int, is_truncated: bool
) -> None:
    tokens = t5.encode("red " * words)

    assert (tokens.over > 0) is is_truncated
    assert len(tokens.ids) == LENGTH
    assert tokens.ids[: min(words, 7)] == (ids["red"],) * min(words, 7)
    assert tokens.ids[min(words, 7)] == END


@pytest.mark.parametrize(("words", "is_truncated"), [(5, False), (6, False), (7, True), (500, True)])
def test_clip_reports_truncation_and_keeps_begin_and_end_tokens(
    clip: PromptTokenizer, words: int, is_truncated: bool
) -> None:
    tokens = clip.encode("red " * words)

    assert (tokens.over > 0) is is_truncated
    assert len(tokens.ids) == LENGTH
    assert (tokens.ids[0], tokens.ids[-1]) == (BEGIN_CLIP, END_CLIP)


def test_unknown_words_are_skipped_and_reported_once(
    pair: tuple[PromptTokenizer, PromptTokenizer], ids: dict[str, int]
) -> None:
    for tokenizer in pair:
        tokens = tokenizer.encode("a Zebra, red zebra and a Zebra on the Jukebox!")

        assert tokens.unknown_words == ("Zebra", "zebra", "and", "Jukebox")
        assert UNKNOWN not in tokens.ids
        kept = [token for token in tokens.ids if token in ids.values() and token > UNKNOWN]
        assert kept == [ids[word] for word in ("a", "red", "a", "on", "the")]


def test_unknown_words_do_not_count_towards_length(t5: PromptTokenizer) -> None:
    assert not t5.encode("zebra " * 50 + "red apple").over


def test_t_rex_is_read_as_two_words(t5: PromptTokenizer, ids: dict[str, int]) -> None:
    tokens = t5.encode("A T-Rex on the beach.")

    assert tokens.ids[:6] == tuple(ids[word] for word in ("a", "t", "rex", "on", "the", "beach"))
    assert tokens.unknown_words == ()


@pytest.mark.parametrize(
    "prompt",
    [
        "RED APPLE",
        "Red Apple",
        "red,apple",
        "red-apple",
        "  red\n\tapple!?",
        "red — apple",
        FULL_WIDTH,
        "red🍎apple",
    ],
)
def test_case_width_and_separators_are_ignored(t5: PromptTokenizer, ids: dict[str, int], prompt: str) -> None:
    tokens = t5.encode(prompt)

    assert tokens.ids[:3] == (ids["red"], ids["apple"], END)
    assert tokens.unknown_words == ()


@pytest.mark.parametrize("prompt", ["船", "ﬁsh", "Ünïcode", "e\u0301clair", "🦊 fox"])
def test_unknown_words_of_any_script_are_reported_as_written(t5: PromptTokenizer, prompt: str) -> None:
    written = prompt.removeprefix("🦊 ")

    assert t5.encode(f"a {prompt} apple").unknown_words == (written,)


def test_built_in_words_do_not_use_clip_special_tokens() -> None:
    model = open_model(sketch_folder()).load()

    assert model.clip_tokenizer.tokenizer.get_vocab_size() <= model.config.clip.vocab_size - 2
    assert model.clip_tokenizer.end_id == model.config.clip.vocab_size - 1
    assert model.t5_tokenizer.encode("A T-Rex on a beach").unknown_words == ()
