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
    CATEGORIES,
    HAND_WRITTEN,
    HELD_OUT,
    BenchmarkPrompt,
    benchmark_prompts,
    is_right,
    overall,
    score,
    seed_difference,
)
from training.evaluate.evaluator import DetectedObject, Detections


def at(icon, x=0.5, y=0.5, variant=None):
    return DetectedObject(icon, variant, x, y)


def prompt(*subjects, relation=None, background="red", **judged):
    return BenchmarkPrompt("single thing", "", background, subjects, relation, **judged)


def detections(*objects, background="red"):
    return Detections(background, objects)


def test_every_category_has_a_hundred_prompts_or_more_each_different():
    counts = Counter(one.category for one in benchmark_prompts())
    assert set(counts) == set(ALL_CATEGORIES)
    assert min(counts.values()) >= 100
    for category in ALL_CATEGORIES:
        texts = [one.text for one in benchmark_prompts() if one.category == category]
        assert len(set(texts)) == len(texts)


def test_only_the_held_out_category_asks_for_what_is_held_out():
    for one in benchmark_prompts():
        if one.category != HAND_WRITTEN:
            assert is_held_out(one.subjects, one.background) == (one.category == HELD_OUT)


def test_prompts_are_the_same_for_ever():
    assert benchmark_prompts()[0].text == "Just a trumpet, please; on an orange background"
    assert benchmark_prompts()[-1].text == "one tall pine tree in the woods"


def test_prompts_hold_words_that_no_caption_has():
    known = set(captions.vocabulary())
    strange = [one for one in benchmark_prompts() if set(re.findall(r"[a-z]+", one.text.lower())) - known]
    assert len(strange) / len(benchmark_prompts()) > 0.8


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_prompts_name_what_their_pictures_are_judged_by(category):
    for one in benchmark_prompts():
        if one.category != category:
            continue
        for subject in one.subjects:
            wordings = BY_ICON[subject.icon].wordings
            named = [wording.lower() for name in wordings for wording in (name, plural(name))]
            assert any(wording in one.text.lower() for wording in named), one.text
            assert subject.variant is None or subject.variant in one.text


def test_a_thing_is_right_if_it_is_there_once():
    fox = prompt(Subject("fox"))
    assert is_right(fox, detections(at("fox"), at("star")))
    assert not is_right(fox, detections(at("star")))
    assert not is_right(fox, detections(at("fox", 0.2), at("fox", 0.8)))


def test_a_number_is_right_if_there_are_as_many():
    three = prompt(Subject("fox", 3))
    places = [at("fox", x) for x in (0.1, 0.4, 0.7, 0.9)]
    assert is_right(three, detections(*places[:3]))
    assert not is_right(three, detections(*places[:2]))
    assert not is_right(three, detections(*places))


def test_a_colour_is_right_if_all_of_the_kind_have_it():
    blue = prompt(Subject("balloon", 1, "blue"))
    assert is_right(blue, detections(at("balloon", variant="blue")))
    assert not is_right(blue, detections(at("balloon")))
    assert not is_right(blue, detections(at("balloon", variant="red")))
    assert is_right(prompt(Subject("balloon")), detections(at("balloon", variant="red")))
    # A balloon is usually red.
    assert is_right(prompt(Subject("balloon", 1, "red")), detections(at("balloon")))


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
    prompts = prompt(Subject("fox"), Subject("star"), relation=relation)
    assert is_right(prompts, detections(at("fox", *good[0]), at("star", *good[1])))
    assert not is_right(prompts, detections(at("fox", *bad[0]), at("star", *bad[1])))
    assert not is_right(prompts, detections(at("fox", *good[0])))


def test_things_that_are_just_together_may_stand_anywhere():
    prompts = prompt(Subject("fox"), Subject("star"), relation="with")
    assert is_right(prompts, detections(at("fox", 0.8), at("star", 0.2)))


def test_background_and_things_are_judged_only_where_that_is_asked():
    shown = detections(at("fox"), background="beach")
    assert is_right(prompt(Subject("fox")), shown)
    assert not is_right(prompt(Subject("fox"), checks_background=True), shown)
    only_ground = prompt(Subject("star"), background="beach", checks_background=True, checks_objects=False)
    assert is_right(only_ground, shown)


def test_scores_are_shares_of_pictures_by_category():
    prompts = [
        BenchmarkPrompt("single thing", "fox", "red", (Subject("fox"),)),
        BenchmarkPrompt("counting", "stars", "red", (Subject("star", 2),)),
    ]
    shown = {
        ("fox", 0): detections(at("fox")),
        ("fox", 1): detections(),
        ("stars", 0): detections(),
        ("stars", 1): detections(),
    }
    blank = np.zeros((8, 8, 3), np.uint8)
    generated = []

    def generate(text, seed):
        generated.append((text, seed))
        return blank

    found = score(generate, lambda _: shown[generated[-1]], prompts, (0, 1))

    assert found == {"single thing": 0.5, "counting": 0.0}
    assert generated == list(shown)


def test_overall_is_the_mean_of_the_six_categories_and_of_nothing_else():
    shares = dict.fromkeys(CATEGORIES, 0.5) | {HELD_OUT: 0.0, "counting": 1.0}
    assert overall(shares) == pytest.approx((5 * 0.5 + 1.0) / 6)


def test_difference_is_the_mean_of_all_pairs_of_seeds():
    images = {0: 0, 1: 10, 2: 30}
    prompts = [BenchmarkPrompt("single thing", "fox", "red", ())]

    apart = seed_difference(lambda _, seed: np.full((4, 4, 3), images[seed], np.uint8), prompts, (0, 1, 2))

    assert apart == pytest.approx((10 + 30 + 20) / 3)
