"""Latent sprites: extraction and cache."""

import zlib
from collections.abc import Sequence

import pytest
import torch
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
from training.tests.data.local_encoder import LocalAutoencoder

CHANNELS = SKETCH.transformer.in_channels


@pytest.fixture(scope="module")
def autoencoder():
    return LocalAutoencoder()


@pytest.fixture
def extractor(autoencoder, art):
    return SpriteExtractor(autoencoder, art)


def bare(autoencoder, colour, rows, columns, light):
    """Return the latents of a background without objects: (rows, columns, C)."""
    cell = SKETCH.token_px
    image = draw_background(colour, columns * cell, rows * cell, BackgroundParams(light=light))
    levels = torch.from_numpy(image * 255).round().to(torch.uint8).permute(2, 0, 1)[None]
    return pack(autoencoder.encode(to_signed(levels)))[0].unflatten(0, (rows, columns))


def test_sprite_keys_cover_size_background_and_appearance():
    keys = sprite_keys()

    assert len(set(keys)) == len(keys) == len(SPRITE_CELLS) * len(COLOURS) * len(all_appearances())
    assert {(SMALL, "red", ("automobile", "blue")), (BIG, "white", ("panda", None))} <= set(keys)
    assert (USUAL, "white", ("panda", "blue")) not in keys


@pytest.mark.parametrize("cells", SPRITE_CELLS)
@pytest.mark.parametrize("count", [2, 5])
def test_sprite_of_local_encoder_covers_only_its_cells(extractor, count, cells):
    sprites = extractor.sprites(cells, "yellow", all_appearances()[:count]).float()

    assert sprites.shape == (count, SPRITE_SIDE, SPRITE_SIDE, CHANNELS)
    own = slice(MARGIN, MARGIN + cells)
    inside = sprites[:, own, own].abs().amax(-1) > 0.05
    assert bool(inside.any(2).any(1).all())
    # Every row and column of the object's cells is covered.
    assert bool(inside.any(0).any(0).all() and inside.any(0).any(1).all())
    around = sprites.clone()
    around[:, own, own] = 0
    assert float(around.abs().max()) < 0.02
    assert len({tuple(one.flatten().tolist()) for one in sprites}) == count


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (7, 20), (20, 7), (9, 16)])
def test_extracted_background_shows_no_objects(extractor, autoencoder, rows, columns):
    dark, bright = extractor.background("green", rows, columns)

    assert torch.allclose(dark, bare(autoencoder, "green", rows, columns, -1.0), atol=0.02)
    assert torch.allclose(bright, bare(autoencoder, "green", rows, columns, 1.0), atol=0.02)


class FakeExtractor(SpriteExtractor):
    """An extractor that counts its calls and returns values that identify their arguments."""

    calls = 0

    def sprites(self, cells: int, colour: str, appearances: Sequence[Appearance]) -> Tensor:
        self.calls += 1
        values = torch.tensor([value_of(cells, colour, icon, variant) for icon, variant in appearances])
        return values[:, None, None, None].expand(-1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()

    def background(self, colour: str, rows: int, columns: int) -> Tensor:
        return torch.full((2, rows, columns, CHANNELS), value_of(colour, str(rows), str(columns)))


def value_of(*names):
    """Return a number that identifies names and is exact in bfloat16."""
    return float(zlib.crc32(repr(names).encode()) % 251)


def test_sprites_follow_key_order_and_end_with_empty_sprite(autoencoder, art, tmp_path):
    built = build_sprites(FakeExtractor(autoencoder, art), tmp_path)

    values = [value_of(cells, colour, *appearance) for cells, colour, appearance in sprite_keys()]
    assert built.sprites[:, 3, 3, 7].tolist() == [*values, 0.0]
    assert len(built.backgrounds) == len(SIZES)
    for (rows, columns), backgrounds in built.backgrounds.items():
        assert backgrounds.shape == (len(COLOURS), 2, rows, columns, CHANNELS)
        assert backgrounds[:, 1, 2, 3, 4].tolist() == [value_of(colour, str(rows), str(columns)) for colour in COLOURS]


def test_sprite_cache_depends_on_encoder_and_extraction(autoencoder, art, tmp_path):
    extractor, other = FakeExtractor(autoencoder, art), LocalAutoencoder()
    torch.nn.init.ones_(other.encoder.weight)
    other_extractor = FakeExtractor(other, art)

    built = build_sprites(extractor, tmp_path)
    again = build_sprites(extractor, tmp_path)
    build_sprites(other_extractor, tmp_path)

    assert extractor.calls == other_extractor.calls == len(SPRITE_CELLS) * len(COLOURS)
    assert torch.equal(built.sprites, again.sprites)
    (path,) = (one for one in tmp_path.iterdir() if fingerprint(autoencoder.encoder) in one.name)
    (keys, grids, side, corners), *content = torch.load(path, weights_only=True)
    others = [(keys[1:], grids, side, corners), (keys, grids, side, corners[::-1]), (keys, grids, side)]
    for times, described in enumerate(others, start=2):
        torch.save((described, *content), path)
        build_sprites(extractor, tmp_path)
        assert extractor.calls == times * len(SPRITE_CELLS) * len(COLOURS)
