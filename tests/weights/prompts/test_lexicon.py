"""The lexicon of the built-in model: its size, its targets, and refusal of damaged files."""

from pathlib import Path

import pytest

from allaprima.errors import WeightsCorrupt
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE, Lexicon
from allaprima.weights.prompts.lexicon_fields import NOTHING, PLACE


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(sketch_folder() / LEXICON_FILE)


def test_lexicon_has_30000_words_of_which_10000_have_a_target(lexicon: Lexicon) -> None:
    words = {word: target for word, target in lexicon.targets.items() if "_" not in word}

    assert len(words) >= 30_000
    assert sum(target != NOTHING for target in words.values()) >= 10_000


def test_lexicon_is_smaller_than_a_megabyte() -> None:
    assert (sketch_folder() / LEXICON_FILE).stat().st_size < 1_000_000


def test_every_target_is_a_thing_or_a_place(lexicon: Lexicon) -> None:
    places = {PLACE + name for name in lexicon.grounds}

    assert set(lexicon.targets.values()) <= {NOTHING, *places, *lexicon.things}
    assert set(lexicon.colours.values()) <= {"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown",
                                             "black", "white", "gray"}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "target"),
    [("dalmatian", "dog"), ("yachts", "sailboat"), ("library", "@room"), ("harbour", "@sea"), ("fisherman", "@sea"),
     ("flying", None), ("woman", NOTHING)],
)  # fmt: skip
def test_word_has_the_target_of_its_singular(lexicon: Lexicon, word: str, target: str | None) -> None:
    assert lexicon.find(word) in (target, NOTHING if target is None else target)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_damaged_lexicon_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEXICON_FILE).write_bytes(content)

    with pytest.raises(WeightsCorrupt, match=LEXICON_FILE):
        _ = Lexicon(tmp_path / LEXICON_FILE).targets
