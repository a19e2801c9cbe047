"""Backgrounds and their parameters."""

import itertools

import numpy as np
import pytest

from training.data.backgrounds import BACKGROUNDS, COLOURS, OPEN, SCENIC, BackgroundParams, draw_background

ALL_PARAMS = [BackgroundParams(*numbers) for numbers in itertools.product((-1.0, 0.0, 1.0), repeat=4)]


def test_backgrounds_are_11_plain_and_at_least_12_scenic():
    assert len(COLOURS) == 11
    assert len(SCENIC) >= 12


@pytest.mark.parametrize("name", [*BACKGROUNDS, OPEN])
@pytest.mark.parametrize("size", [(90, 60), (40, 120), (64, 64)])
def test_backgrounds_are_in_range_for_all_parameters(name, size):
    for params in ALL_PARAMS[::7]:
        image = draw_background(name, *size, params)
        assert image.shape == (size[1], size[0], 3)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize("name", SCENIC)
def test_scenic_backgrounds_change_smoothly_with_parameters(name):
    def shown(drift):
        return draw_background(name, 64, 64, BackgroundParams(horizon=drift, drift=drift))

    near = np.abs(shown(0.0) - shown(0.02)).mean()
    far = np.abs(shown(-1.0) - shown(1.0)).mean()
    assert 0 < near < 0.02
    assert far > 3 * near


def test_plain_backgrounds_have_their_colour():
    for name, colour in COLOURS.items():
        assert np.allclose(draw_background(name, 32, 32, BackgroundParams()).mean((0, 1)) * 255, colour, atol=12)


def test_backgrounds_differ_visibly():
    images = {name: draw_background(name, 32, 32, BackgroundParams()) for name in BACKGROUNDS}
    for one, other in itertools.combinations(BACKGROUNDS, 2):
        assert np.abs(images[one] - images[other]).mean() > 0.03, (one, other)


def test_open_background_hue_is_a_parameter():
    hues = [draw_background(OPEN, 8, 8, BackgroundParams(hue=hue)).mean((0, 1)) for hue in (-0.8, -0.2, 0.4, 1.0)]
    for one, other in itertools.combinations(hues, 2):
        assert np.abs(one - other).max() > 0.1
