"""Latent sprites: the difference that an object makes to the latents of a plain background.

The encoder's normalisations depend on the whole image, so a background encoded without an object, or an object encoded
alone, gives other latents than both together. A sprite is therefore extracted from an image of two objects (a small or
a big object alone, since it is always alone in a scene), and a background from images with an object elsewhere. Latents
of composites then differ from those of the drawn image by 4 % of the variance (6 % in the cells of objects).

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

#: Cells around an object whose latents it still affects.
MARGIN = 1
#: Sides in cells of the objects that have sprites.
SPRITE_CELLS = (SMALL, USUAL, BIG)
#: Side of a sprite in cells; the sprite of a smaller object is padded to the right and below.
SPRITE_SIDE = BIG + 2 * MARGIN
#: Rows and columns of the images that sprites are extracted from: close to a canvas, with room for two objects of usual
#: size whose margins overlap in one corner.
SHEET_CELLS = 2 * USUAL + 3 * MARGIN
#: Images that are encoded at a time.
ENCODE_BATCH = 16
#: Number of objects whose images are averaged to extract a background.
NEIGHBOURS = 4

#: Icon and colour variant of an object.
Appearance = tuple[str, str | None]
#: Row and column of an object's upper left cell.
Corner = tuple[int, int]


class LatentSprites(NamedTuple):
    """The parts of latent composites."""

    #: For each of `sprite_keys`, the difference to the latents of the background, with its margin; the last sprite is
    #: empty: (N + 1, SPRITE_SIDE, SPRITE_SIDE, C), bfloat16.
    sprites: Tensor
    #: By rows and columns, the plain backgrounds at their darkest and brightest: (colours, 2, H, W, C), float32.
    backgrounds: dict[tuple[int, int], Tensor]


def all_appearances() -> list[Appearance]:
    """Return every object in every colour variant."""
    variants: tuple[str | None, ...] = (None, *COLOUR_VARIANTS)
    return [(obj.icon, variant) for obj in OBJECTS for variant in (variants if obj.colour else variants[:1])]


def sprite_keys() -> list[tuple[int, str, Appearance]]:
    """Return what each sprite shows, in order: side in cells, background colour and appearance.

    They include held-out combinations, which no composed scene uses.
    """
    appearances = all_appearances()
    return [(cells, colour, appearance) for cells in SPRITE_CELLS for colour in COLOURS for appearance in appearances]


class SpriteExtractor:
    """Draws objects on plain backgrounds and extracts the latents of either."""

    def __init__(self, autoencoder: Autoencoder, art: Art) -> None:
        self.autoencoder, self._art = autoencoder, art

    def sprites(self, cells: int, colour: str, appearances: Sequence[Appearance]) -> Tensor:
        """Return sprites of objects whose side is `cells` on a plain background.

        (len(appearances), SPRITE_SIDE, SPRITE_SIDE, C), bfloat16.
        """
        # Latents are nearly linear in light, so the mean is the background at medium light.
        background = self.background(colour, SHEET_CELLS, SHEET_CELLS).mean(0)
        corners = _corners(cells)
        # Appearances that share an image are far apart in the list, so they are of different objects.
        count = -(-len(appearances) // len(corners))
        groups = [[appearances[(i + j * count) % len(appearances)] for j in range(len(corners))] for i in range(count)]
        reach = cells + 2 * MARGIN
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
                extracted[j, batch, :reach, :reach] = added[:, top : top + reach, left : left + reach]
        return extracted.flatten(0, 1)[: len(appearances)]

    def background(self, colour: str, rows: int, columns: int) -> Tensor:
        """Return the latents of a plain background, darkest first: (2, H, W, C), float32.

        Each half is taken from images with an object in the other half, so one side has 2 * (USUAL + MARGIN) cells or
        more.
        """
        assert max(rows, columns) >= 2 * (USUAL + MARGIN), "room for an object in each half"
        icons = [obj.icon for obj in OBJECTS[:: -(-len(OBJECTS) // NEIGHBOURS)]]
        axis = 0 if rows > columns else 1
        middle, far = (rows, columns)[axis] // 2, (rows - USUAL, columns - USUAL)

        def halves(end: int, light: float) -> tuple[Tensor, ...]:
            """Return both halves of a background with an object at one end of it: 0 the first, 1 the last."""
            row, column = (far[0] * end, far[1] // 2) if axis == 0 else (far[0] // 2, far[1] * end)
            images = [
                self._image(colour, rows, columns, light, USUAL, [((icon, None), (row, column))]) for icon in icons
            ]
            return self._latents(images, rows, columns).mean(0).tensor_split((middle,), axis)

        return torch.stack([torch.cat((halves(1, light)[0], halves(0, light)[1]), axis) for light in (-1.0, 1.0)])

    def _image(
        self, colour: str, rows: int, columns: int, light: float, cells: int, objects: list[tuple[Appearance, Corner]]
    ) -> NDArray[np.uint8]:
        """Return an image of objects whose side is `cells` on a plain background: (height, width, 3), uint8."""
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
    """Return the positions of objects in an image that sprites are extracted from: of two objects of usual size in
    opposite corners, of one of another size in the middle.
    """
    if cells != USUAL:
        return [((SHEET_CELLS - cells) // 2,) * 2]
    return [(MARGIN,) * 2, (SHEET_CELLS - MARGIN - cells,) * 2]


def build_sprites(extractor: SpriteExtractor, folder: Path) -> LatentSprites:
    """Return sprites of every appearance, and backgrounds of every canvas, on the autoencoder's device.

    They are cached in `folder`, together with what they show and from which positions they were extracted; the cache is
    rebuilt if either has changed. The encoder's fingerprint is part of the file name.
    """
    # The names of files in a work folder stay when those in the code change.
    path = folder / f"cutouts-{fingerprint(extractor.autoencoder.encoder)}.pt"
    canvases = [canvas_px(*size) for size in SIZES]
    grids = [(height // SKETCH.token_px, width // SKETCH.token_px) for width, height in canvases]
    wanted = (sprite_keys(), grids, SPRITE_SIDE, [_corners(cells) for cells in SPRITE_CELLS])
    if not path.exists() or torch.load(path, weights_only=True)[0] != wanted:
        appearances = all_appearances()
        sprites = [extractor.sprites(cells, colour, appearances).cpu() for cells in SPRITE_CELLS for colour in COLOURS]
        empty = torch.zeros_like(sprites[0][:1])
        backgrounds = {
            grid: torch.stack([extractor.background(colour, *grid).cpu() for colour in COLOURS]) for grid in grids
        }
        write_atomically((wanted, torch.cat((*sprites, empty)), backgrounds), path)
    _, sprites, backgrounds = torch.load(path, map_location=device_of(extractor.autoencoder), weights_only=True)
    print(f"latent sprites: {len(sprites) - 1}", flush=True)
    return LatentSprites(sprites, backgrounds)
