"""Drawn scenes as tensors."""

import pytest
import torch

from allaprima.flux import SKETCH
from training.pictures import PART, SQUARE, Painters, canvas_px, pick_canvas, to_signed
from training.scenes import SIZES


@pytest.mark.parametrize("size", SIZES)
def test_canvases_are_whole_tokens_of_about_the_pictures_ratio(size):
    width, height = canvas_px(*size)

    assert width % SKETCH.token_px == height % SKETCH.token_px == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
    tokens = width * height // SKETCH.token_px**2
    assert 7 / 8 <= tokens / SKETCH.native_tokens <= 9 / 8


@pytest.fixture
def painters(art):
    with Painters(art) as opened:
        yield opened


def test_scenes_are_drawn_by_number_the_same_every_time(painters):
    pixels = painters.pixels(range(3, 5), 96, 64)

    assert pixels.shape == (2, 3, 64, 96)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[1:], painters.pixels(range(4, 5), 96, 64))
    assert not torch.equal(pixels[0], pixels[1])


def test_scenes_fill_the_square_canvas_unless_another_is_told(painters):
    assert painters.pixels(range(1)).shape == (1, 3, *SQUARE)


def test_what_several_processes_draw_is_what_one_draws_in_order(painters):
    seeds = range(5, 5 + 2 * PART + 1)

    parts = list(painters.drawn(seeds, 64, 64))

    assert [len(part) for part in parts] == [PART, PART, 1]
    alone = [painters.pixels(range(seed, seed + 1), 64, 64) for seed in seeds]
    assert torch.equal(torch.cat(parts), torch.cat(alone))


def test_painters_who_were_sent_home_come_back(art):
    painters, seeds = Painters(art), range(2 * PART)
    with painters:
        first = painters.pixels(seeds, 64, 64)
    with painters:
        assert torch.equal(painters.pixels(seeds, 64, 64), first)


def test_a_pool_has_scenes_of_every_canvas_each_its_share(painters):
    pool = painters.pool(20)

    assert [len(scenes) for scenes in pool] == [9, 4, 1, 2, 1, 2, 1]
    assert torch.equal(pool[0][8:], painters.pixels(range(8, 9)))


def test_canvases_are_picked_by_the_number_of_their_scenes():
    torch.manual_seed(0)
    few, many = torch.zeros(1, 3, 2, 2), torch.zeros(9, 3, 2, 2)

    picked = [len(pick_canvas([few, many])) for _ in range(1000)]

    assert picked.count(1) == pytest.approx(100, abs=30)


def test_levels_become_numbers_from_minus_one_to_one():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
