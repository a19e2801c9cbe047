"""Captions: complete, varied, and within the vocabulary."""

import re
from functools import cache

import numpy as np
import pytest

from allaprima.weights.tokenizers import word_tokenizer
from training.data.backgrounds import COLOURS, OPEN, SCENIC
from training.data.captions import COLOUR_WORDS, COUNT_WORDS, SIZE_WORDS, background_words, caption, vocabulary
from training.data.objects import BY_ACCESSORY, BY_ICON, plural
from training.data.scenes import FREE_FACTORS, SIZES, Scene, Subject, compose

SQUARE = (512, 512)
STILL = (0.0,) * FREE_FACTORS


@cache
def captioned():
    """Return scenes of all canvases, each with a caption."""
    rng = np.random.default_rng(7)
    sizes = list(SIZES)
    scenes = [compose(seed, *sizes[seed % len(sizes)]) for seed in range(2500)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def names(subject, text):
    """Return whether a text has one of the names of a subject, as whole words."""
    wordings = [wording.removeprefix("red ") for wording in BY_ICON[subject.icon].wordings]
    spoken = [plural(wording) for wording in wordings] if subject.count > 1 else wordings
    # Some captions omit small words.
    keys = [re.escape(wording).replace(r"\ of\ ", r"\ (of\ )?") for wording in spoken]
    return any(re.search(rf"(?<![\w-]){key}(?![\w-])", text) for key in keys)


def test_captions_name_every_object():
    for scene, text in captioned():
        assert all(names(subject, text) for subject in scene.subjects), text


def test_captions_name_background_unless_open():
    for scene, text in captioned():
        if scene.background in SCENIC:
            assert any(wording.split()[-1] in text.split() for wording in SCENIC[scene.background].wordings), text
        elif scene.background in COLOURS:
            assert set(COLOUR_WORDS.get(scene.background, (scene.background,))) & set(text.split()), text


def test_captions_state_count_colour_size_and_accessory():
    for scene, text in captioned():
        said = set(re.findall(r"[\w-]+", text))
        for subject in scene.subjects:
            if subject.count > 1:
                assert any(set(word.split()) - {"a", "of"} <= said for word in COUNT_WORDS[subject.count]), text
            if subject.variant is not None:
                assert set(COLOUR_WORDS.get(subject.variant, (subject.variant,))) & said, text
            if subject.size is not None:
                assert set(SIZE_WORDS[subject.size]) & said, text
            if subject.accessory is not None:
                wordings = BY_ACCESSORY[subject.accessory].wordings
                assert any(wording.split()[-1] in said for wording in wordings), text


@pytest.mark.parametrize(
    ("phrase", "relation", "is_first"),
    [
        ("left of", "left", True),
        ("right of", "left", False),
        ("above", "above", True),
        ("below", "above", False),
        ("in front of", "front", True),
        ("behind", "front", False),
        ("next to", "with", True),
    ],
)
def test_captions_state_relations(phrase, relation, is_first):
    count = 0
    for scene, text in captioned():
        # "in front of a red wall" describes a background, not a relation.
        if scene.relation != relation or "wall" in text:
            continue
        before, found, after = text.partition(f" {phrase} ")
        if found:
            first, second = scene.subjects if is_first else scene.subjects[::-1]
            assert names(first, before), text
            assert names(second, after), text
            count += 1
    assert count > 10


def test_captions_use_correct_articles():
    rng = np.random.default_rng(0)
    said = " ".join(caption(compose(seed, 512, 512), rng) for seed in range(2000))
    assert re.search(r"\ban orange background", said)
    assert re.search(r"\ban elephant", said)
    assert not re.search(r"\b(a [aeio]|an [^aeiou])", said)


def test_captions_of_one_scene_vary():
    scene = Scene("beach", (Subject("t-rex", accessory="sunglasses"),), None, *SQUARE, STILL)
    rng = np.random.default_rng(0)
    assert len({caption(scene, rng) for _ in range(200)}) > 100


def test_some_captions_omit_small_words():
    said = [set(text.split()) for _, text in captioned()]
    assert any(not spoken & {"a", "the", "one"} for spoken in said)
    assert sum("background" in spoken for spoken in said) > 100


def test_every_caption_word_is_in_vocabulary():
    tokenizer = word_tokenizer(vocabulary())
    unknown = tokenizer.token_to_id("<unk>")
    for _, text in captioned():
        assert unknown not in tokenizer.encode(text).ids, text


def test_vocabulary_is_sorted_without_duplicates():
    assert vocabulary() == sorted(set(vocabulary()))


def test_open_background_has_no_words():
    assert background_words(OPEN) == ("",)
