"""Latent sprites: the difference between the latents of an object on a plain background and those of the background.

The encoder's normalisations depend on the whole image, so the latents of a background change with the objects on it.
Sprites are therefore extracted from images of two objects, and backgrounds from images with an object elsewhere. Small
and big objects are alone in a scene, so their sprites are extracted from images of one object. The latents of a
composite then differ from those of the drawn image by 4 % of the variance (6 % in the cells of objects).

Dimension key: N sprites, H rows, W columns, C latent values per token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.art import COLOUR_VARIANTS, Art
from training.data.backgrounds import COLOURS, BackgroundParams, draw_background
from training.data.latents import device_of, encode_pixels, fingerprint
from training.data.layout import BIG, SMALL, USUAL
from training.data.objects import OBJECTS
from training.data.rendering import canvas_px
from training.data.scenes import SIZES, paste
from training.data.storage import write_atomically

#: Width in cells of the margin around an object in which the object changes the latents.
MARGIN = 1
#: Sides in cells of the objects that have sprites.
SPRITE_CELLS = (SMALL, USUAL, BIG)
#: Side of a sprite in cells. The sprite of a smaller object is padded at the right and the bottom.
SPRITE_SIDE = BIG + 2 * MARGIN
#: Side in cells of the images from which sprites are extracted: close to that of a canvas, and large enough for two
#: objects of usual size whose margins overlap in one corner.
SHEET_CELLS = 2 * USUAL + 3 * MARGIN
#: Number of images that are encoded at a time.
ENCODE_BATCH = 16
#: Number of objects whose images are averaged to extract a background.
NEIGHBOURS = 4

#: Icon and colour variant of an object.
Appearance = tuple[str, str | None]
#: Row and column of an object's upper left cell.
Corner = tuple[int, int]


class LatentSprites(NamedTuple):
    """The sprites and backgrounds from which composites are assembled."""

    #: The sprites in the order of `sprite_keys`, with margins, then an empty sprite:
    #: (N + 1, SPRITE_SIDE, SPRITE_SIDE, C), bfloat16.
    sprites: Tensor
    #: The latents of the plain backgrounds by (rows, columns), at least and most light: (colours, 2, H, W, C), float32.
    backgrounds: dict[tuple[int, int], Tensor]


def all_appearances() -> list[Appearance]:
    """Return the appearances of all objects in all their colour variants."""
    variants: tuple[str | None, ...] = (None, *COLOUR_VARIANTS)
    return [(obj.icon, variant) for obj in OBJECTS for variant in (variants if obj.colour else variants[:1])]


def sprite_keys() -> list[tuple[int, str, Appearance]]:
    """Return the key of each sprite, in order: side in cells, background colour, and appearance.

    The keys include held-out combinations, which no composed scene uses.
    """
    appearances = all_appearances()
    return [(cells, colour, appearance) for cells in SPRITE_CELLS for colour in COLOURS for appearance in appearances]


class SpriteExtractor:
    """Draws objects on plain backgrounds and extracts the latents of the objects and of the backgrounds."""

    def __init__(self, autoencoder: Autoencoder, art: Art) -> None:
        self.autoencoder, self._art = autoencoder, art

    def sprites(self, cells: int, colour: str, appearances: Sequence[Appearance]) -> Tensor:
        """Return the sprites of objects with a side of `cells` cells on a plain background.

        Returns (len(appearances), SPRITE_SIDE, SPRITE_SIDE, C), bfloat16.
        """
        # Latents are nearly linear in the light, so the mean of both backgrounds is the background at medium light.
        background = self.background(colour, SHEET_CELLS, SHEET_CELLS).mean(0)
        corners = _corners(cells)
        # Appearances in one image are `count` apart in the list, so they belong to different objects.
        count = -(-len(appearances) // len(corners))
        groups = [[appearances[(i + j * count) % len(appearances)] for j in range(len(corners))] for i in range(count)]
        side = cells + 2 * MARGIN
        shape = (len(corners), count, SPRITE_SIDE, SPRITE_SIDE, background.shape[-1])
        extracted = torch.zeros(shape, dtype=torch.bfloat16, device=background.device)
        for first in range(0, count, ENCODE_BATCH):
            batch = slice(first, first + ENCODE_BATCH)
            images = [
                self._image(colour, SHEET_CELLS, SHEET_CELLS, 0.0, cells, list(zip(group, corners, strict=True)))
                for group in groups[batch]
            ]
            added = self._latents(images, SHEET_CELLS, SHEET_CELLS) - background
            for j, (row, column) in enumerate(corners):
                top, left = row - MARGIN, column - MARGIN
                extracted[j, batch, :side, :side] = added[:, top : top + side, left : left + side]
        return extracted.flatten(0, 1)[: len(appearances)]

    def background(self, colour: str, rows: int, columns: int) -> Tensor:
        """Return the latents of a plain background at least and most light: (2, H, W, C), float32.

        Each half of the background is extracted from images with an object in the other half. So the longer side must
        have at least 2 * (USUAL + MARGIN) cells.
        """
        assert max(rows, columns) >= 2 * (USUAL + MARGIN), "the canvas is too small for an object in each half"
        icons = [obj.icon for obj in OBJECTS[:: -(-len(OBJECTS) // NEIGHBOURS)]]
        axis = 0 if rows > columns else 1
        middle, last_corner = (rows, columns)[axis] // 2, (rows - USUAL, columns - USUAL)

        def halves(end: int, light: float) -> tuple[Tensor, ...]:
            """Return the latents of both halves of a background with an object at its start (end=0) or end (end=1)."""
            row, column = (
                (last_corner[0] * end, last_corner[1] // 2)
                if axis == 0
                else (last_corner[0] // 2, last_corner[1] * end)
            )
            images = [
                self._image(colour, rows, columns, light, USUAL, [((icon, None), (row, column))]) for icon in icons
            ]
            return self._latents(images, rows, columns).mean(0).tensor_split((middle,), axis)

        return torch.stack([torch.cat((halves(1, light)[0], halves(0, light)[1]), axis) for light in (-1.0, 1.0)])

    def _image(
        self, colour: str, rows: int, columns: int, light: float, cells: int, objects: list[tuple[Appearance, Corner]]
    ) -> NDArray[np.uint8]:
        """Return an image of objects with a side of `cells` cells on a plain background: (height, width, 3), uint8."""
        cell = SKETCH.token_px
        image = draw_background(colour, columns * cell, rows * cell, BackgroundParams(light=light))
        for (icon, variant), (row, column) in objects:
            paste(image, self._art.sprite(icon, cells * cell, variant), column * cell, row * cell)
        return np.round(image * 255).astype(np.uint8)

    def _latents(self, images: list[NDArray[np.uint8]], rows: int, columns: int) -> Tensor:
        """Return the latents of images of rows x columns cells: (B, H, W, C), float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
        latents = encode_pixels(self.autoencoder, pixels.to(device_of(self.autoencoder)))
        return latents.float().unflatten(1, (rows, columns))


def _corners(cells: int) -> list[Corner]:
    """Return the positions of the objects in an image from which sprites are extracted.

    The image has two objects of usual size in opposite corners, or one object of another size in the middle.
    """
    if cells != USUAL:
        return [((SHEET_CELLS - cells) // 2,) * 2]
    return [(MARGIN,) * 2, (SHEET_CELLS - MARGIN - cells,) * 2]


def build_sprites(extractor: SpriteExtractor, folder: Path) -> LatentSprites:
    """Return the sprites of all appearances and the backgrounds of all canvases, on the autoencoder's device.

    They are cached in `folder`, together with their keys and the positions from which they were extracted. If these
    have changed, the cache is rebuilt. The file name contains the encoder's fingerprint.
    """
    # The file name is part of the format of a work folder, so it must not change with the names in the code.
    path = folder / f"cutouts-{fingerprint(extractor.autoencoder.encoder)}.pt"
    canvases = [canvas_px(*size) for size in SIZES]
    grids = [(height // SKETCH.token_px, width // SKETCH.token_px) for width, height in canvases]
    contents = (sprite_keys(), grids, SPRITE_SIDE, [_corners(cells) for cells in SPRITE_CELLS])
    if not path.exists() or torch.load(path, weights_only=True)[0] != contents:
        appearances = all_appearances()
        sprites = [extractor.sprites(cells, colour, appearances).cpu() for cells in SPRITE_CELLS for colour in COLOURS]
        empty = torch.zeros_like(sprites[0][:1])
        backgrounds = {
            grid: torch.stack([extractor.background(colour, *grid).cpu() for colour in COLOURS]) for grid in grids
        }
        write_atomically((contents, torch.cat((*sprites, empty)), backgrounds), path)
    _, sprites, backgrounds = torch.load(path, map_location=device_of(extractor.autoencoder), weights_only=True)
    print(f"latent sprites: {len(sprites) - 1}", flush=True)
    return LatentSprites(sprites, backgrounds)
