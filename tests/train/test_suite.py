"""The scorer: the judge against scenes whose truth is known, the committed prompts, and the score's arithmetic."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("resvg_py", reason="drawing scenes needs resvg-py: install the `train` extra")

from allaprima.train import suite
from allaprima.train.art import BY_ICON, TARBALL, THINGS, Art
from allaprima.train.scenes import (
    BACKGROUNDS,
    COLOUR_WORDS,
    COLOURS,
    PLACES,
    Placed,
    Scene,
    compose,
    draw,
    words,
)
from programs import need

#: One prompt for every background, and more.
SOME = suite.prompts()[::5]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The judge's steps are too small to share out: threads that wait for one another cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def art():
    """The art, kept between runs where git does not look."""
    folder = Path(__file__).parents[2] / "build" / "art"
    if not (folder / TARBALL).exists():
        need("npm", "fetches the art")
    return Art(folder)


def painted(art, background, icon, seed=0, width=512, height=512, **placed):
    """The true picture of one thing, as a painter would return it."""
    scene = Scene(background, (Placed(icon, 0.48, 0.53, 0.74, **placed),), width, height, seed)
    return (draw(scene, art) * 255).round().astype(np.uint8)


def by_text(text):
    return next(prompt for prompt in suite.prompts() if prompt.text == text)


def test_the_judge_is_right_on_nearly_all_true_scenes(art):
    background, thing = suite.error_rate(art, 40)
    assert background <= 0.01
    assert thing <= 0.03


def test_softness_hardly_misleads_the_judge(art):
    background, thing = suite.error_rate(art, 20, blur_px=9)
    assert background <= 0.05
    assert thing <= 0.1


@pytest.mark.parametrize("icon", [thing.icon for thing in THINGS if thing.eyes])
def test_a_thing_wearing_sunglasses_is_still_that_thing(art, icon):
    assert suite.thing_of(painted(art, "beach", icon, wears_sunglasses=True), "beach", art) == icon


@pytest.mark.parametrize("size", [(320, 320), (700, 400), (300, 500), (48, 48)])
def test_pictures_of_any_size_are_judged(art, size):
    picture = painted(art, "meadow", "robot", 0, *size)
    assert suite.background_of(picture) == "meadow"
    assert suite.thing_of(picture, "meadow", art) == "robot"


def test_floats_and_bytes_are_judged_alike(art):
    picture = painted(art, "snow", "crab")
    floats = picture.astype(np.float32) / 255
    assert suite.background_of(floats) == suite.background_of(picture) == "snow"
    assert suite.thing_of(floats, "snow", art) == suite.thing_of(picture, "snow", art) == "crab"


def test_a_bare_background_holds_nothing(art):
    colour = np.array(COLOURS["blue"], dtype=np.uint8)
    assert suite.thing_of(np.tile(colour, (512, 512, 1)), "blue", art) == suite.NOTHING


def test_a_painter_of_true_scenes_scores_full_marks(art, capsys):
    def paint(text, seed):
        prompt = by_text(text)
        return painted(art, prompt.background, prompt.icon, seed)

    assert suite.score(paint, art, seeds=(3,), asked=SOME) == suite.Score(1.0, 1.0, 1.0)
    table = capsys.readouterr().out
    assert "missed" not in table
    assert table.splitlines()[-1].split() == ["all", str(len(SOME)), "100.0%", "100.0%", "100.0%"]


def test_a_painter_of_nothing_gets_no_thing_right(art, capsys):
    share = suite.score(lambda _text, _seed: np.full((96, 96, 3), 152, np.uint8), art, seeds=(0,), asked=SOME)
    asked_for_gray = sum(prompt.background == "gray" for prompt in SOME) / len(SOME)
    assert share == suite.Score(asked_for_gray, 0.0, 0.0)
    assert capsys.readouterr().out.count("missed") == len(SOME)


def test_background_and_thing_are_counted_apart(art, capsys):
    asked = [prompt for prompt in SOME if prompt.icon != "teapot"][:4]
    share = suite.score(lambda text, _: painted(art, by_text(text).background, "teapot"), art, (0, 1), asked)
    assert share == suite.Score(1.0, 0.0, 0.0)
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed")]
    assert len(missed) == 8
    assert f"got teapot / {asked[0].background}: {asked[0].text}" in missed[0]


def test_there_are_a_hundred_different_prompts():
    assert len(suite.prompts()) == 100
    assert len({prompt.text for prompt in suite.prompts()}) == 100
    assert all(prompt.text for prompt in suite.prompts())


def test_prompts_cover_all_things_and_backgrounds_evenly():
    things = Counter(prompt.icon for prompt in suite.prompts())
    backgrounds = Counter(prompt.background for prompt in suite.prompts())
    assert set(things) == set(BY_ICON)
    assert set(backgrounds) == set(BACKGROUNDS)
    assert max(things.values()) <= 2
    assert set(backgrounds.values()) <= {5, 6}


def spoken(text):
    return re.findall(r"[a-z0-9]+", text.lower())


@pytest.mark.parametrize("prompt", suite.prompts(), ids=lambda prompt: prompt.text)
def test_prompts_name_their_thing_and_background_in_words_the_model_knows(prompt):
    known = [word for word in spoken(prompt.text) if word in words()]
    named = [spoken(wording) for wording in BY_ICON[prompt.icon].wordings]
    assert any(set(wording) <= set(known) for wording in named)
    if prompt.background in COLOURS:
        assert set(COLOUR_WORDS.get(prompt.background, (prompt.background,))) & set(known)
    else:
        little = {"a", "at", "by", "green", "in", "of", "on", "sky", "the", "under"}
        told = {word for wording in PLACES[prompt.background].wordings for word in spoken(wording)}
        assert (told - little) & set(known)


def test_a_scene_of_a_number_is_drawn_the_same_for_ever(art):
    first, again = (draw(compose(20_000_123, 200, 160), art) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw(compose(20_000_124, 200, 160), art))


@pytest.mark.parametrize("size", [(128, 128), (192, 108), (96, 270)])
def test_drawn_scenes_are_float_pictures_from_0_to_1(art, size):
    width, height = size
    for seed in range(30):
        picture = draw(compose(seed, width, height), art)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.float32
        assert picture.min() >= 0
        # Sums of rounded products may pass 1 by a rounding.
        assert picture.max() <= 1 + 1e-6
