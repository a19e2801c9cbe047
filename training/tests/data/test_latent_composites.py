"""Latent composites."""

import numpy as np
import pytest
import torch

from allaprima.domain.models import Precision
from allaprima.flux import SKETCH
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from training.data.backgrounds import COLOURS, OPEN
from training.data.held_out import is_held_out
from training.data.latent_composites import CompositePlanner, compose_compositable, composite, is_compositable
from training.data.latent_sprites import MARGIN, SPRITE_SIDE, LatentSprites, SpriteExtractor, sprite_keys
from training.data.latents import encode_pixels
from training.data.layout_labels import layout_labels
from training.data.rendering import SQUARE, canvas_px
from training.data.scenes import (
    SIZES,
    Scene,
    Subject,
    background_params,
    cell_grid,
    compose,
    draw_pixels,
    place_objects,
)
from training.tests.data.local_encoder import LocalAutoencoder

CHANNELS = SKETCH.transformer.in_channels


def scene(*subjects, background="blue", relation=None, free_factors=(0.0,) * 8, canvas=SQUARE):
    return Scene(background, subjects, relation, *canvas, free_factors)


def blank(rows, columns, value=0.0):
    """Return sprites of one value, and backgrounds that are 0 at the darkest and 1 at the brightest."""
    sprites = torch.zeros(len(sprite_keys()) + 1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()
    for number, (cells, *_) in enumerate(sprite_keys()):
        sprites[number, : cells + 2 * MARGIN, : cells + 2 * MARGIN] = value
    backgrounds = torch.stack((torch.zeros(rows, columns, CHANNELS), torch.ones(rows, columns, CHANNELS)))
    return LatentSprites(sprites, {(rows, columns): backgrounds.expand(len(COLOURS), -1, -1, -1, -1)})


def test_objects_on_plain_background_are_compositable():
    assert is_compositable(scene(Subject("panda", 3)))
    assert is_compositable(scene(Subject("panda"), Subject("automobile", 1, "red"), relation="left"))
    assert is_compositable(scene(Subject("panda")))
    for canvas in SIZES:
        assert is_compositable(scene(Subject("panda", size="big"), canvas=canvas_px(*canvas)))
        assert is_compositable(scene(Subject("panda", size="small"), canvas=canvas_px(*canvas)))


def test_scenic_overlapping_and_accessory_scenes_are_not_compositable():
    assert not is_compositable(scene(Subject("panda", 3), background="beach"))
    assert not is_compositable(scene(Subject("panda", 3), background=OPEN))
    assert not is_compositable(scene(Subject("panda"), Subject("automobile"), relation="front"))
    assert not is_compositable(scene(Subject("panda", accessory="sunglasses")))


@pytest.mark.parametrize("size", SIZES)
def test_composed_scenes_are_compositable_and_not_held_out(size):
    rng = np.random.default_rng(0)

    found = [compose_compositable(rng, *canvas_px(*size)) for _ in range(40)]

    assert len(set(found)) == len(found)
    assert all(is_compositable(one) for one in found)
    assert not any(is_held_out(one.subjects, one.background) for one in found)
    assert len({len(one.subjects) for one in found}) > 1


@pytest.mark.parametrize("canvas", [SQUARE, canvas_px(1440, 512), canvas_px(512, 1440)])
def test_composite_of_local_encoder_equals_drawn_scene(art, canvas):
    composed = [one for one in (compose(seed, *canvas) for seed in range(400)) if is_compositable(one)]
    sized = [next(one for one in composed if one.subjects[0].size == size) for size in ("small", "big")]

    found, drawn = composited_and_drawn(LocalAutoencoder(), art, [*composed[:4], *sized])

    assert float((found - drawn).square().mean()) < 0.003 * float(drawn.var())


@pytest.mark.parametrize(("size", "most"), [("small", 0.05), (None, 0.1), ("big", 0.05)])
def test_composite_of_shipped_encoder_is_close_to_drawn_scene(art, size, most):
    autoencoder = open_model(sketch_folder()).load(precision=Precision.FP32).networks.autoencoder
    composed = (compose(seed, *SQUARE) for seed in range(400))
    scenes = [one for one in composed if is_compositable(one) and one.subjects[0].size == size][:3]

    found, drawn = composited_and_drawn(autoencoder, art, scenes)

    covered = layout_labels(scenes)[..., 0] > 0
    assert float((found - drawn)[covered].square().mean()) < most * float(drawn.var())


def composited_and_drawn(autoencoder, art, scenes):
    """Return the latents of scenes of one canvas as composites and as drawn images: (B, L, C) each."""
    extractor = SpriteExtractor(autoencoder, art)
    rows, columns = cell_grid(scenes[0])
    numbers = {key: number for number, key in enumerate(sprite_keys())}
    sprites = torch.zeros(len(numbers) + 1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()
    backgrounds = torch.zeros(len(COLOURS), 2, rows, columns, CHANNELS)
    for one in scenes:
        wanted = [(subject.icon, subject.variant) for subject in one.subjects]
        cells = place_objects(one)[0].box.cells
        for appearance, extracted in zip(wanted, extractor.sprites(cells, one.background, wanted), strict=True):
            sprites[numbers[cells, one.background, appearance]] = extracted
        backgrounds[list(COLOURS).index(one.background)] = extractor.background(one.background, rows, columns)

    latents = LatentSprites(sprites, {(rows, columns): backgrounds})
    found = composite(latents, CompositePlanner().plan(scenes), rows, columns)
    pixels = torch.stack([torch.from_numpy(draw_pixels(one, art)).permute(2, 0, 1) for one in scenes])
    return found, encode_pixels(autoencoder, pixels).float()


def test_margins_are_clipped_at_edges_and_added_on_overlap():
    # On a wide canvas four objects have no gap between them.
    shown = scene(
        Subject("panda", 4), canvas=canvas_px(1440, 512), free_factors=(-9.0, -9.0, *(0.0,) * 3, -9.0, 0.0, 0.0)
    )
    rows, columns = cell_grid(shown)
    wanted = torch.zeros(rows, columns)
    boxes = [one.box for one in place_objects(shown)]
    for box in boxes:
        wanted[
            max(0, box.row - MARGIN) : box.row + box.cells + MARGIN,
            max(0, box.column - MARGIN) : box.column + box.cells + MARGIN,
        ] += 1
    assert int(wanted.amax()) == 2
    assert min(box.column for box in boxes) < MARGIN

    (found,) = composite(blank(rows, columns, value=1.0), CompositePlanner().plan([shown]), rows, columns)

    assert torch.equal(found, wanted.flatten()[:, None].expand(-1, CHANNELS))


def test_light_interpolates_between_backgrounds():
    rows, columns = cell_grid(scene(Subject("panda", 2)))
    scenes = [
        scene(Subject("panda", 2), free_factors=(0.0,) * 5 + (light, 0.0, 0.0)) for light in (-9.0, -1.0, 0.0, 2.0)
    ]

    found = composite(blank(rows, columns), CompositePlanner().plan(scenes), rows, columns)

    assert found.mean((1, 2)).tolist() == pytest.approx([(1 + background_params(one).light) / 2 for one in scenes])
    assert found.mean((1, 2)).tolist() == pytest.approx([0, 0.25, 0.5, 1])
