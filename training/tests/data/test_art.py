"""Sprites of all objects and their colour variants."""

import colorsys

import numpy as np
import pytest

from training.data.art import COLOUR_VARIANTS
from training.data.objects import OBJECTS

RECOLOURED = [obj.icon for obj in OBJECTS if obj.colour]


def test_every_object_has_premultiplied_sprite(art):
    for obj in OBJECTS:
        sprite = art.sprite(obj.icon, 24)
        assert sprite.shape == (24, 24, 4)
        assert 0.05 < sprite[..., 3].mean() <= 1
        assert (sprite[..., :3] <= sprite[..., 3:] + 1e-6).all()


@pytest.mark.parametrize("icon", RECOLOURED)
def test_colour_variants_keep_outline_and_differ(art, icon):
    usual = art.sprite(icon, 32)
    variants = [art.sprite(icon, 32, variant) for variant in COLOUR_VARIANTS]
    assert all(np.allclose(one[..., 3], usual[..., 3]) for one in variants)
    for i, one in enumerate(variants):
        for other in variants[:i]:
            assert np.abs(one - other).mean() > 0.01


def test_blue_variant_recolours_red_parts(art):
    usual, blue = (art.sprite("automobile", 64, variant) for variant in (None, "blue"))
    changed = np.abs(usual - blue).sum(axis=2) > 0.5
    hues = [colorsys.rgb_to_hsv(*pixel)[0] * 360 for pixel in blue[changed][:, :3].tolist()]
    assert 0.1 < changed.mean() < 0.6
    assert abs(np.median(hues) - COLOUR_VARIANTS["blue"][0]) < 15


def test_black_variant_is_dark(art):
    sprite = art.sprite("red-heart", 64, "black")
    assert sprite[32, 32, :3].max() < 0.3
