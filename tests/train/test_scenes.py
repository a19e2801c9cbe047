"""Scenes by number, and captions that are true of them. Nothing here needs the art itself."""

import re
from functools import cache

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="scenes need resvg-py: install the `train` extra")

from allaprima.train.art import BY_ICON, THINGS
from allaprima.train.scenes import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    Placed,
    Scene,
    background,
    caption,
    compose,
    paste,
    words,
)

SQUARE = (512, 512)
SIZES = [SQUARE, (1024, 768), (768, 1024), (1024, 576), (576, 1024), (1440, 512), (512, 1440)]


@cache
def composed(size=SQUARE):
    """The first scenes of a canvas."""
    return [compose(seed, *size) for seed in range(1500)]


@cache
def captioned(size=SQUARE):
    """Those scenes with a caption each."""
    rng = np.random.default_rng(7)
    return [(scene, caption(scene, rng)) for scene in composed(size)]


def names(icon, text):
    """Whether one of a thing's wordings stands in a text, as whole words."""
    return any(re.search(rf"(?<![\w-]){re.escape(wording)}(?![\w-])", text) for wording in BY_ICON[icon].wordings)


@pytest.mark.parametrize("size", SIZES)
def test_a_number_gives_the_same_scene_for_ever(size):
    assert [compose(seed, *size) for seed in range(50)] == [compose(seed, *size) for seed in range(50)]
    assert compose(1, *size) != compose(2, *size)


def test_the_scene_of_a_number_is_this_one():
    """Held-out scenes stay held out, and scores comparable, only while numbers keep their scenes."""
    scene = compose(20_000_000, *SQUARE)
    assert (scene.background, [placed.icon for placed in scene.things]) == ("black", ["cat-face"])


@pytest.mark.parametrize("size", SIZES)
def test_things_lie_inside_the_canvas(size):
    width, height = size
    for scene in composed(size):
        for placed in scene.things:
            half = placed.side * min(size) / 2
            # Positions are rounded to whole pixels.
            assert half - 1 <= placed.x * width <= width - half + 1
            assert half - 1 <= placed.y * height <= height - half + 1


@pytest.mark.parametrize("size", SIZES)
def test_two_things_are_different_and_stand_apart(size):
    width, height = size
    pairs = [scene.things for scene in composed(size) if len(scene.things) == 2]
    assert len(pairs) > 150
    for first, second in pairs:
        assert first.icon != second.icon
        sides = (first.side + second.side) / 2 * min(size)
        apart = max(abs(first.x - second.x) * width, abs(first.y - second.y) * height)
        assert apart >= 0.9 * sides


def test_every_thing_and_every_background_gets_its_turn():
    scenes = composed()
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {placed.icon for scene in scenes for placed in scene.things} == set(BY_ICON)


def test_only_things_with_eyes_wear_sunglasses():
    wearers = {placed.icon for scene in composed() for placed in scene.things if placed.wears_sunglasses}
    assert wearers == {thing.icon for thing in THINGS if thing.eyes}


def test_captions_name_every_thing():
    for scene, text in captioned():
        assert all(names(placed.icon, text) for placed in scene.things), text


def test_captions_name_the_background():
    for scene, text in captioned():
        if scene.background in PLACES:
            assert any(wording.split()[-1] in text.split() for wording in PLACES[scene.background].wordings), text
        else:
            alias = {"gray": "gr[ae]y", "purple": "purple|violet"}.get(scene.background, scene.background)
            assert re.search(rf"\b({alias})\b", text), text


def test_captions_speak_of_sunglasses_where_there_are_some_and_nowhere_else():
    for scene, text in captioned():
        shown = any(placed.wears_sunglasses or placed.icon == "sunglasses" for placed in scene.things)
        assert ("sunglasses" in text) == shown, text
        if "wearing" in text:
            assert BY_ICON[scene.things[0].icon].eyes is not None, text


@pytest.mark.parametrize(
    ("phrase", "size", "is_true"),
    [
        ("left of", SQUARE, lambda one, other: one.x < other.x),
        ("right of", SQUARE, lambda one, other: one.x > other.x),
        ("above", (512, 1440), lambda one, other: one.y < other.y),
        ("below", (512, 1440), lambda one, other: one.y > other.y),
    ],
)
def test_captions_tell_which_thing_is_where(phrase, size, is_true):
    told = 0
    for scene, text in captioned(size):
        before, found, after = text.partition(f" {phrase} ")
        if found:
            (one,) = (placed for placed in scene.things if names(placed.icon, before))
            (other,) = (placed for placed in scene.things if names(placed.icon, after))
            assert is_true(one, other), text
            told += 1
    assert told > 10


def test_captions_vary():
    scene = Scene("beach", (Placed("t-rex", 0.5, 0.5, 0.7, wears_sunglasses=True),), *SQUARE, 0)
    rng = np.random.default_rng(0)
    assert len({caption(scene, rng) for _ in range(200)}) > 100


def test_some_captions_leave_small_words_out():
    rng = np.random.default_rng(8)
    said = [set(caption(scene, rng).split()) for scene in composed()]

    assert any(not words_ & {"a", "the", "one"} for words_ in said)
    assert sum("background" in words_ for words_ in said) > 100


def test_every_word_of_every_caption_is_in_the_vocabulary():
    known = set(words())
    texts = [text for size in (SQUARE, (512, 1440)) for _, text in captioned(size)]
    assert {word for text in texts for word in text.replace("-", " ").split()} <= known


def test_the_vocabulary_is_in_order_and_free_of_repeats():
    assert words() == sorted(set(words()))


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_are_float_pictures_that_seeds_change_only_a_little(name):
    pictures = np.stack([background(name, 90, 60, seed) for seed in range(8)])
    assert pictures.shape == (8, 60, 90, 3)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert np.array_equal(background(name, 90, 60, 3), pictures[3])
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures - pictures[0]).mean(axis=(1, 2, 3)).max() < 0.05


def test_plain_backgrounds_are_of_their_colour():
    for name, colour in COLOURS.items():
        assert np.allclose(background(name, 32, 32, 0).mean((0, 1)) * 255, colour, atol=12)


def test_what_sticks_out_of_the_picture_is_cut_off():
    picture = np.zeros((10, 20, 3), dtype=np.float32)
    paste(picture, np.ones((288, 288, 4), dtype=np.float32), 0, 5, 8)
    assert picture[1:9, :4].min() == 1
    assert picture.sum() == 3 * 8 * 4


def test_a_see_through_sprite_lets_the_picture_through():
    picture = np.full((8, 8, 3), 0.5, dtype=np.float32)
    half = np.full((288, 288, 4), 0.5, dtype=np.float32)
    half[..., :3] = [0.5, 0, 0]
    paste(picture, half, 4, 4, 8)
    assert np.allclose(picture, [0.75, 0.25, 0.25])
