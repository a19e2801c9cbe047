"""Scenes that are drawn in other processes."""

import torch

from allaprima.train.painters import PART, Painters
from allaprima.train.pictures import SQUARE, scene_pixels
from allaprima.train.scenes import SIZES


def test_what_several_processes_draw_is_what_one_draws_in_order(art):
    seeds = range(5, 5 + 2 * PART + 1)

    with Painters(art) as painters:
        parts = list(painters.drawn(seeds, 64, 64))

    assert [len(part) for part in parts] == [PART, PART, 1]
    assert torch.equal(torch.cat(parts), scene_pixels(seeds, art, 64, 64))


def test_a_pool_has_scenes_of_every_canvas_each_its_share(art):
    with Painters(art) as painters:
        pool = painters.pool(20, first=100)

    assert len(pool) == len(SIZES)
    assert [len(scenes) for scenes in pool] == [9, 4, 1, 2, 1, 2, 1]
    assert torch.equal(pool[0], scene_pixels(range(100, 109), art, *SQUARE))
