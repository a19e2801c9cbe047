"""Rendering scenes as tensors."""

import pytest
import torch

from allaprima.flux import SKETCH
from training.data.rendering import SCENES_PER_TASK, SQUARE, SceneRenderer, canvas_px, sample_canvas, to_signed
from training.data.scenes import SIZES


@pytest.mark.parametrize("size", SIZES)
def test_canvases_have_whole_tokens_and_requested_ratio(size):
    width, height = canvas_px(*size)

    assert width % SKETCH.token_px == height % SKETCH.token_px == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
    tokens = width * height // SKETCH.token_px**2
    assert 7 / 8 <= tokens / SKETCH.native_tokens <= 9 / 8


@pytest.fixture
def renderer(art):
    with SceneRenderer(art) as opened:
        yield opened


def test_image_is_determined_by_seed(renderer):
    pixels = renderer.render(range(3, 5), 96, 64)

    assert pixels.shape == (2, 3, 64, 96)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[1:], renderer.render(range(4, 5), 96, 64))
    assert not torch.equal(pixels[0], pixels[1])


def test_default_canvas_is_square(renderer):
    assert renderer.render(range(1)).shape == (1, 3, *SQUARE)


def test_worker_processes_render_same_images_in_order(renderer):
    seeds = range(5, 5 + 2 * SCENES_PER_TASK + 1)

    chunks = list(renderer.render_chunks(seeds, 64, 64))

    assert [len(chunk) for chunk in chunks] == [SCENES_PER_TASK, SCENES_PER_TASK, 1]
    alone = [renderer.render(range(seed, seed + 1), 64, 64) for seed in seeds]
    assert torch.equal(torch.cat(chunks), torch.cat(alone))


def test_closed_renderer_can_be_reopened(art):
    renderer, seeds = SceneRenderer(art), range(2 * SCENES_PER_TASK)
    with renderer:
        first = renderer.render(seeds, 64, 64)
    with renderer:
        assert torch.equal(renderer.render(seeds, 64, 64), first)


def test_pool_contains_canvases_by_share(renderer):
    pool = renderer.render_pool(20)

    assert [len(scenes) for scenes in pool] == [9, 4, 1, 2, 1, 2, 1]
    assert torch.equal(pool[0][8:], renderer.render(range(8, 9)))


def test_canvas_is_sampled_in_proportion_to_its_scenes():
    torch.manual_seed(0)
    few, many = torch.zeros(1, 3, 2, 2), torch.zeros(9, 3, 2, 2)

    picked = [len(sample_canvas([few, many])) for _ in range(1000)]

    assert picked.count(1) == pytest.approx(100, abs=30)


def test_pixel_levels_are_scaled_to_minus_one_to_one():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
