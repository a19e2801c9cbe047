"""The vocabulary of objects."""

from collections import Counter

import pytest

from training.data.objects import ACCESSORIES, BY_ICON, OBJECTS, article, plural


def test_vocabulary_has_160_objects():
    assert len(OBJECTS) == len(BY_ICON) == 160


def test_object_names_are_unique_in_singular_and_plural():
    named = Counter(name for obj in OBJECTS for wording in obj.wordings for name in {wording, plural(wording)})
    assert [name for name, times in named.items() if times > 1] == []


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("red apple", "red apples"),
        ("slice of pizza", "slices of pizza"),
        ("fox", "foxes"),
        ("peach", "peaches"),
        ("strawberry", "strawberries"),
        ("monkey", "monkeys"),
        ("tomato", "tomatoes"),
        ("flamingo", "flamingos"),
        ("mouse", "mice"),
        ("maple leaf", "maple leaves"),
        ("snowman", "snowmen"),
    ],
)
def test_plurals_are_english(one, many):
    assert plural(one) == many


@pytest.mark.parametrize("name", ["elephant", "orange car", "umbrella", "ice cream"])
def test_an_precedes_vowel_sound(name):
    assert article(name) == "an"


@pytest.mark.parametrize("name", ["dog", "unicorn", "ufo", "small elephant"])
def test_a_precedes_other_sounds(name):
    assert article(name) == "a"


@pytest.mark.parametrize("accessory", ACCESSORIES, ids=lambda accessory: accessory.icon)
def test_accessory_is_an_object_and_fits_several_objects(accessory):
    assert accessory.icon in BY_ICON
    assert sum(getattr(obj.body, accessory.place) is not None for obj in OBJECTS) >= 5
