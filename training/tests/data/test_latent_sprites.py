"""What collages are made of."""

import zlib
from collections.abc import Sequence

import pytest
import torch
from local_encoder import LocalAutoencoder
from torch import Tensor

from allaprima.flux import SKETCH
from allaprima.flux.latents import pack
from training.data.backgrounds import COLOURS, BackgroundParams, draw_background
from training.data.latent_sprites import (
    MARGIN,
    SPRITE_CELLS,
    SPRITE_SIDE,
    Appearance,
    SpriteExtractor,
    all_appearances,
    build_sprites,
    sprite_keys,
)
from training.data.latents import fingerprint
from training.data.layout import BIG, SMALL, USUAL
from training.data.rendering import to_signed
from training.data.scenes import SIZES

CHANNELS = SKETCH.transformer.in_channels


@pytest.fixture(scope="module")
def autoencoder():
    return LocalAutoencoder()


@pytest.fixture
def extractor(autoencoder, art):
    return SpriteExtractor(autoencoder, art)


def bare(autoencoder, colour, rows, columns, light):
    """Latents of a background with nothing on it: (rows, columns, C)."""
    cell = SKETCH.token_px
    image = draw_background(colour, columns * cell, rows * cell, BackgroundParams(light=light))
    levels = torch.from_numpy(image * 255).round().to(torch.uint8).permute(2, 0, 1)[None]
    return pack(autoencoder.encode(to_signed(levels)))[0].unflatten(0, (rows, columns))


def test_every_thing_has_a_cutout_of_every_size_on_every_colour_in_every_colour_that_it_comes_in():
    keys = sprite_keys()

    assert len(set(keys)) == len(keys) == len(SPRITE_CELLS) * len(COLOURS) * len(all_appearances())
    assert {(SMALL, "red", ("automobile", "blue")), (BIG, "white", ("panda", None))} <= set(keys)
    assert (USUAL, "white", ("panda", "blue")) not in keys


@pytest.mark.parametrize("cells", SPRITE_CELLS)
@pytest.mark.parametrize("count", [2, 5])
def test_a_cutout_is_what_the_thing_adds_and_nothing_around_it_if_the_encoder_sees_no_farther(extractor, count, cells):
    cut = extractor.objects(cells, "yellow", all_appearances()[:count]).float()

    assert cut.shape == (count, SPRITE_SIDE, SPRITE_SIDE, CHANNELS)
    own = slice(MARGIN, MARGIN + cells)
    inside = cut[:, own, own].abs().amax(-1) > 0.05
    assert bool(inside.any(2).any(1).all())
    # There is a thing in every row and column.
    assert bool(inside.any(0).any(0).all() and inside.any(0).any(1).all())
    around = cut.clone()
    around[:, own, own] = 0
    assert float(around.abs().max()) < 0.02
    assert len({tuple(one.flatten().tolist()) for one in cut}) == count


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (7, 20), (20, 7), (9, 16)])
def test_a_ground_holds_nothing_of_the_things_that_it_was_seen_beside(extractor, autoencoder, rows, columns):
    dark, bright = extractor.background("green", rows, columns)

    assert torch.allclose(dark, bare(autoencoder, "green", rows, columns, -1.0), atol=0.02)
    assert torch.allclose(bright, bare(autoencoder, "green", rows, columns, 1.0), atol=0.02)


class FakeExtractor(SpriteExtractor):
    """Cuts numbers that tell what they are of, and counts how often."""

    calls = 0

    def objects(self, cells: int, colour: str, several: Sequence[Appearance]) -> Tensor:
        self.calls += 1
        values = torch.tensor([value_of(cells, colour, icon, variant) for icon, variant in several])
        return values[:, None, None, None].expand(-1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()

    def draw_background(self, colour: str, rows: int, columns: int) -> Tensor:
        return torch.full((2, rows, columns, CHANNELS), value_of(colour, str(rows), str(columns)))


def value_of(*names):
    """A number for names, different for different ones, that bfloat16 holds."""
    return float(zlib.crc32(repr(names).encode()) % 251)


def test_there_is_a_cutout_for_every_key_in_order_with_an_empty_one_behind_and_a_ground_for_every_canvas(
    autoencoder, art, tmp_path
):
    made = build_sprites(FakeExtractor(autoencoder, art), tmp_path)

    values = [value_of(cells, colour, *appearance) for cells, colour, appearance in sprite_keys()]
    assert made.objects[:, 3, 3, 7].tolist() == [*values, 0.0]
    assert len(made.backgrounds) == len(SIZES)
    for (rows, columns), backgrounds in made.backgrounds.items():
        assert backgrounds.shape == (len(COLOURS), 2, rows, columns, CHANNELS)
        assert backgrounds[:, 1, 2, 3, 4].tolist() == [value_of(colour, str(rows), str(columns)) for colour in COLOURS]


def test_cutouts_are_kept_and_made_anew_for_another_encoder_or_where_they_are_cut_otherwise(autoencoder, art, tmp_path):
    extractor, other = FakeExtractor(autoencoder, art), LocalAutoencoder()
    torch.nn.init.ones_(other.encoder.weight)
    anew = FakeExtractor(other, art)

    made = build_sprites(extractor, tmp_path)
    again = build_sprites(extractor, tmp_path)
    build_sprites(anew, tmp_path)

    assert extractor.calls == anew.calls == len(SPRITE_CELLS) * len(COLOURS)
    assert torch.equal(made.objects, again.objects)
    (kept,) = (one for one in tmp_path.iterdir() if fingerprint(autoencoder.encoder) in one.name)
    (keys, grids, side, corners), *what = torch.load(kept, weights_only=True)
    others = [(keys[1:], grids, side, corners), (keys, grids, side, corners[::-1]), (keys, grids, side)]
    for times, of in enumerate(others, start=2):
        torch.save((of, *what), kept)
        build_sprites(extractor, tmp_path)
        assert extractor.calls == times * len(SPRITE_CELLS) * len(COLOURS)
