"""The suite: its prompts, its verdicts, and the arithmetic of scores."""

import re
from collections import Counter

import numpy as np
import pytest

from training.data import captions
from training.data.held_out import is_held_out
from training.data.objects import BY_ICON, plural
from training.data.scenes import Subject
from training.evaluate.benchmark import (
    ALL_CATEGORIES,
    BY_HAND,
    CATEGORIES,
    HELD_OUT,
    Ask,
    asks,
    difference,
    is_right,
    overall,
    score,
)
from training.evaluate.evaluator import Found, Sight


def at(icon, x=0.5, y=0.5, dye=None):
    return Found(icon, dye, x, y)


def ask(*subjects, relation=None, background="red", **judged):
    return Ask("single thing", "", background, subjects, relation, **judged)


def sight(*things, background="red"):
    return Sight(background, things)


def test_every_category_has_a_hundred_prompts_or_more_each_different():
    counts = Counter(one.category for one in asks())
    assert set(counts) == set(ALL_CATEGORIES)
    assert min(counts.values()) >= 100
    for category in ALL_CATEGORIES:
        texts = [one.text for one in asks() if one.category == category]
        assert len(set(texts)) == len(texts)


def test_only_the_held_out_category_asks_for_what_is_held_out():
    for one in asks():
        if one.category != BY_HAND:
            assert is_held_out(one.subjects, one.background) == (one.category == HELD_OUT)


def test_prompts_are_the_same_for_ever():
    assert asks()[0].text == "Just a trumpet, please; on an orange background"
    assert asks()[-1].text == "one tall pine tree in the woods"


def test_prompts_hold_words_that_no_caption_has():
    known = set(captions.words())
    strange = [one for one in asks() if set(re.findall(r"[a-z]+", one.text.lower())) - known]
    assert len(strange) / len(asks()) > 0.8


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_prompts_name_what_their_pictures_are_judged_by(category):
    for one in asks():
        if one.category != category:
            continue
        for subject in one.subjects:
            wordings = BY_ICON[subject.icon].wordings
            named = [wording.lower() for name in wordings for wording in (name, plural(name))]
            assert any(wording in one.text.lower() for wording in named), one.text
            assert subject.dye is None or subject.dye in one.text


def test_a_thing_is_right_if_it_is_there_once():
    fox = ask(Subject("fox"))
    assert is_right(fox, sight(at("fox"), at("star")))
    assert not is_right(fox, sight(at("star")))
    assert not is_right(fox, sight(at("fox", 0.2), at("fox", 0.8)))


def test_a_number_is_right_if_there_are_as_many():
    three = ask(Subject("fox", 3))
    places = [at("fox", x) for x in (0.1, 0.4, 0.7, 0.9)]
    assert is_right(three, sight(*places[:3]))
    assert not is_right(three, sight(*places[:2]))
    assert not is_right(three, sight(*places))


def test_a_colour_is_right_if_all_of_the_kind_have_it():
    blue = ask(Subject("balloon", 1, "blue"))
    assert is_right(blue, sight(at("balloon", dye="blue")))
    assert not is_right(blue, sight(at("balloon")))
    assert not is_right(blue, sight(at("balloon", dye="red")))
    assert is_right(ask(Subject("balloon")), sight(at("balloon", dye="red")))
    # A balloon is usually red.
    assert is_right(ask(Subject("balloon", 1, "red")), sight(at("balloon")))


@pytest.mark.parametrize(
    ("relation", "good", "bad"),
    [
        ("left", ((0.2, 0.5), (0.8, 0.6)), ((0.8, 0.5), (0.2, 0.5))),
        ("above", ((0.5, 0.2), (0.5, 0.8)), ((0.2, 0.5), (0.8, 0.5))),
        ("front", ((0.5, 0.7), (0.5, 0.45)), ((0.5, 0.2), (0.5, 0.8))),
        ("front", ((0.5, 0.7), (0.3, 0.45)), ((0.5, 0.75), (0.5, 0.25))),
    ],
)
def test_a_relation_is_right_if_things_stand_so(relation, good, bad):
    asked = ask(Subject("fox"), Subject("star"), relation=relation)
    assert is_right(asked, sight(at("fox", *good[0]), at("star", *good[1])))
    assert not is_right(asked, sight(at("fox", *bad[0]), at("star", *bad[1])))
    assert not is_right(asked, sight(at("fox", *good[0])))


def test_things_that_are_just_together_may_stand_anywhere():
    asked = ask(Subject("fox"), Subject("star"), relation="with")
    assert is_right(asked, sight(at("fox", 0.8), at("star", 0.2)))


def test_background_and_things_are_judged_only_where_that_is_asked():
    shown = sight(at("fox"), background="beach")
    assert is_right(ask(Subject("fox")), shown)
    assert not is_right(ask(Subject("fox"), judges_background=True), shown)
    only_ground = ask(Subject("star"), background="beach", judges_background=True, judges_things=False)
    assert is_right(only_ground, shown)


def test_scores_are_shares_of_pictures_by_category():
    asked = [
        Ask("single thing", "fox", "red", (Subject("fox"),)),
        Ask("counting", "stars", "red", (Subject("star", 2),)),
    ]
    shown = {("fox", 0): sight(at("fox")), ("fox", 1): sight(), ("stars", 0): sight(), ("stars", 1): sight()}
    blank = np.zeros((8, 8, 3), np.uint8)
    painted = []

    def paint(text, seed):
        painted.append((text, seed))
        return blank

    found = score(paint, lambda _: shown[painted[-1]], asked, (0, 1))

    assert found == {"single thing": 0.5, "counting": 0.0}
    assert painted == list(shown)


def test_overall_is_the_mean_of_the_six_categories_and_of_nothing_else():
    shares = dict.fromkeys(CATEGORIES, 0.5) | {HELD_OUT: 0.0, "counting": 1.0}
    assert overall(shares) == pytest.approx((5 * 0.5 + 1.0) / 6)


def test_difference_is_the_mean_of_all_pairs_of_seeds():
    pictures = {0: 0, 1: 10, 2: 30}
    asked = [Ask("single thing", "fox", "red", ())]

    apart = difference(lambda _, seed: np.full((4, 4, 3), pictures[seed], np.uint8), asked, (0, 1, 2))

    assert apart == pytest.approx((10 + 30 + 20) / 3)
