"""Held-out combinations."""

import itertools

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.held_out import combinations, is_held_out, is_pair_held_out
from training.data.objects import OBJECTS
from training.data.scenes import Subject, compose


def test_about_one_combination_in_16_is_held_out():
    listed = list(combinations())
    pairs = sum(kind == "pair" for kind, _, _ in listed)
    assert 0.05 < pairs / (len(OBJECTS) * (len(OBJECTS) - 1) / 2) < 0.075
    assert {kind for kind, _, _ in listed} == {"background", "colour", "pair"}


def test_training_scenes_have_no_held_out_combinations():
    kept = [compose(seed, 512, 512) for seed in range(1500)]
    free = [compose(seed, 512, 512, allow_held_out=True) for seed in range(1500)]
    assert not any(is_held_out(scene.subjects, scene.background) for scene in kept)
    assert sum(is_held_out(scene.subjects, scene.background) for scene in free) > 50


def test_held_out_pair_does_not_depend_on_order():
    assert all(is_pair_held_out(b, a) == is_pair_held_out(a, b) for _, a, b in list(combinations())[:200])


def test_held_out_list_is_complete():
    found = [
        ("background", obj.icon, name)
        for obj in OBJECTS
        for name in (*BACKGROUNDS, OPEN)
        if is_held_out([Subject(obj.icon)], name)
    ]
    found += [
        ("colour", obj.icon, str(variant))
        for obj in OBJECTS
        if obj.colour is not None
        for variant in (None, *COLOUR_VARIANTS)
        if is_held_out([Subject(obj.icon, variant=variant)], OPEN)
    ]
    found += [
        ("pair", one.icon, other.icon)
        for one, other in itertools.combinations(OBJECTS, 2)
        if is_held_out([Subject(one.icon), Subject(other.icon)], OPEN)
    ]

    assert sorted(found) == sorted(combinations())


def test_open_background_and_usual_colours_are_not_held_out():
    for obj in OBJECTS:
        assert not is_held_out([Subject(obj.icon, variant=obj.colour)], OPEN)
