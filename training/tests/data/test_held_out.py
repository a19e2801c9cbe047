"""Held-out combinations: a fixed few of them, in no scene that a fit sees."""

import itertools

from training.data.art import DYES
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.held_out import combinations, is_held_out, is_pair_held_out
from training.data.objects import THINGS
from training.data.scenes import Subject, compose


def test_about_one_combination_in_sixteen_is_held_out_of_each_kind():
    listed = list(combinations())
    pairs = sum(kind == "pair" for kind, _, _ in listed)
    assert 0.05 < pairs / (len(THINGS) * (len(THINGS) - 1) / 2) < 0.075
    assert {kind for kind, _, _ in listed} == {"background", "colour", "pair"}


def test_no_scene_of_a_fit_holds_one_and_some_of_the_judges_do():
    kept = [compose(seed, 512, 512) for seed in range(1500)]
    free = [compose(seed, 512, 512, may_be_held_out=True) for seed in range(1500)]
    assert not any(is_held_out(scene.subjects, scene.background) for scene in kept)
    assert sum(is_held_out(scene.subjects, scene.background) for scene in free) > 50


def test_the_order_of_two_names_makes_no_difference():
    assert all(is_pair_held_out(b, a) == is_pair_held_out(a, b) for _, a, b in list(combinations())[:200])


def test_what_is_held_out_is_what_is_listed():
    found = [
        ("background", thing.icon, name)
        for thing in THINGS
        for name in (*BACKGROUNDS, OPEN)
        if is_held_out([Subject(thing.icon)], name)
    ]
    found += [
        ("colour", thing.icon, str(dye))
        for thing in THINGS
        if thing.colour is not None
        for dye in (None, *DYES)
        if is_held_out([Subject(thing.icon, dye=dye)], OPEN)
    ]
    found += [
        ("pair", one.icon, other.icon)
        for one, other in itertools.combinations(THINGS, 2)
        if is_held_out([Subject(one.icon), Subject(other.icon)], OPEN)
    ]

    assert sorted(found) == sorted(combinations())


def test_nothing_is_kept_from_the_open_backdrop_or_from_its_usual_colour():
    for thing in THINGS:
        assert not is_held_out([Subject(thing.icon, dye=thing.colour)], OPEN)
