"""Drawn scenes as tensors."""

import pytest
import torch

from allaprima.flux import SKETCH
from allaprima.train.pictures import SQUARE, canvas_px, pick_canvas, scene_pixels, to_signed
from allaprima.train.scenes import SIZES


@pytest.mark.parametrize("size", SIZES)
def test_canvases_are_whole_tokens_of_about_the_pictures_ratio(size):
    width, height = canvas_px(*size)

    assert width % SKETCH.token_px == height % SKETCH.token_px == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
    tokens = width * height // SKETCH.token_px**2
    assert 0.9 * SKETCH.canvas_tokens <= tokens <= SKETCH.canvas_tokens


def test_scenes_are_drawn_by_number_the_same_every_time(art):
    pixels = scene_pixels(range(3, 5), art, 96, 64)

    assert pixels.shape == (2, 3, 64, 96)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[1:], scene_pixels(range(4, 5), art, 96, 64))
    assert not torch.equal(pixels[0], pixels[1])


def test_square_scenes_fill_the_square_canvas(art):
    assert scene_pixels(range(1), art).shape == (1, 3, *SQUARE)


def test_canvases_are_picked_by_the_number_of_their_scenes():
    torch.manual_seed(0)
    few, many = torch.zeros(1, 3, 2, 2), torch.zeros(9, 3, 2, 2)

    picked = [len(pick_canvas([few, many])) for _ in range(1000)]

    assert picked.count(1) == pytest.approx(100, abs=30)


def test_levels_become_numbers_from_minus_one_to_one():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
