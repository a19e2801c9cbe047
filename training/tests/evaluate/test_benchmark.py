"""The benchmark: its prompts, the verdict on one image, and the scores."""

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


def prompt(*subjects, relation=None, background="red", **checks):
    return BenchmarkPrompt("single thing", "", background, subjects, relation, **checks)


def detections(*objects, background="red"):
    return Detections(background, objects)


def test_every_category_has_at_least_100_prompts():
    counts = Counter(one.category for one in benchmark_prompts())
    assert set(counts) == set(ALL_CATEGORIES)
    assert min(counts.values()) >= 100
    for category in ALL_CATEGORIES:
        texts = [one.text for one in benchmark_prompts() if one.category == category]
        assert len(set(texts)) == len(texts)


def test_only_held_out_category_has_held_out_combinations():
    for one in benchmark_prompts():
        if one.category != HAND_WRITTEN:
            assert is_held_out(one.subjects, one.background) == (one.category == HELD_OUT)


def test_benchmark_prompts_are_fixed():
    assert benchmark_prompts()[0].text == "Just a trumpet, please; on an orange background"
    assert benchmark_prompts()[-1].text == "one tall pine tree in the woods"


def test_most_prompts_have_words_unused_in_captions():
    known = set(captions.vocabulary())
    unknown = [one for one in benchmark_prompts() if set(re.findall(r"[a-z]+", one.text.lower())) - known]
    assert len(unknown) / len(benchmark_prompts()) > 0.8


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_prompts_name_checked_subjects(category):
    for one in benchmark_prompts():
        if one.category != category:
            continue
        for subject in one.subjects:
            wordings = BY_ICON[subject.icon].wordings
            named = [wording.lower() for name in wordings for wording in (name, plural(name))]
            assert any(wording in one.text.lower() for wording in named), one.text
            assert subject.variant is None or subject.variant in one.text


def test_object_is_right_if_detected_once():
    fox = prompt(Subject("fox"))
    assert is_right(fox, detections(at("fox"), at("star")))
    assert not is_right(fox, detections(at("star")))
    assert not is_right(fox, detections(at("fox", 0.2), at("fox", 0.8)))


def test_count_is_right_if_equal_to_detections():
    three = prompt(Subject("fox", 3))
    foxes = [at("fox", x) for x in (0.1, 0.4, 0.7, 0.9)]
    assert is_right(three, detections(*foxes[:3]))
    assert not is_right(three, detections(*foxes[:2]))
    assert not is_right(three, detections(*foxes))


def test_colour_is_right_if_all_objects_have_it():
    blue = prompt(Subject("balloon", 1, "blue"))
    assert is_right(blue, detections(at("balloon", variant="blue")))
    assert not is_right(blue, detections(at("balloon")))
    assert not is_right(blue, detections(at("balloon", variant="red")))
    assert is_right(prompt(Subject("balloon")), detections(at("balloon", variant="red")))
    # The usual colour of a balloon is red.
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
def test_relation_is_right_if_positions_match(relation, good, bad):
    pair = prompt(Subject("fox"), Subject("star"), relation=relation)
    assert is_right(pair, detections(at("fox", *good[0]), at("star", *good[1])))
    assert not is_right(pair, detections(at("fox", *bad[0]), at("star", *bad[1])))
    assert not is_right(pair, detections(at("fox", *good[0])))


def test_objects_without_stated_position_may_be_anywhere():
    pair = prompt(Subject("fox"), Subject("star"), relation="with")
    assert is_right(pair, detections(at("fox", 0.8), at("star", 0.2)))


def test_background_and_objects_are_checked_if_prompt_says_so():
    shown = detections(at("fox"), background="beach")
    assert is_right(prompt(Subject("fox")), shown)
    assert not is_right(prompt(Subject("fox"), checks_background=True), shown)
    only_ground = prompt(Subject("star"), background="beach", checks_background=True, checks_objects=False)
    assert is_right(only_ground, shown)


def test_score_is_share_of_right_images_per_category():
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


def test_overall_score_is_mean_of_six_categories():
    shares = dict.fromkeys(CATEGORIES, 0.5) | {HELD_OUT: 0.0, "counting": 1.0}
    assert overall(shares) == pytest.approx((5 * 0.5 + 1.0) / 6)


def test_seed_difference_is_mean_over_seed_pairs():
    images = {0: 0, 1: 10, 2: 30}
    prompts = [BenchmarkPrompt("single thing", "fox", "red", ())]

    apart = seed_difference(lambda _, seed: np.full((4, 4, 3), images[seed], np.uint8), prompts, (0, 1, 2))

    assert apart == pytest.approx((10 + 30 + 20) / 3)
