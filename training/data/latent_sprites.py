"""Cutouts: what a thing adds to the latents of a plain background, of which collages are made.

The encoder's normalisations look at the whole picture, so neither is a background encoded bare nor a thing alone: a
cutout is taken from a picture of two things (a small or a big one alone, as it always stands), a ground from pictures
that have a thing elsewhere. So taken, the latents of a collage are those of the drawn picture but for 4 % of their
variance (6 % where things are).

Dimension key: N cutouts, H rows, W columns, C latent values per token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.art import DYES, Art
from training.data.backgrounds import COLOURS, Mood, background
from training.data.latents import device_of, encoded, fingerprint
from training.data.layout import BIG, SMALL, USUAL
from training.data.objects import THINGS
from training.data.rendering import canvas_px
from training.data.scenes import SIZES, paste
from training.data.storage import write_whole

#: Cells around a thing in which the encoder still sees it.
MARGIN = 1
#: Sides in cells of things that there are cutouts of.
CUT_CELLS = (SMALL, USUAL, BIG)
#: Side of a cutout in cells; that of a smaller thing is empty to the right and below.
SIDE = BIG + 2 * MARGIN
#: Rows and columns of the pictures that cutouts are taken from: as near to a canvas's as it goes, two things of usual
#: size being on one, their margins overlapping in one corner.
SHEET = 2 * USUAL + 3 * MARGIN
#: Pictures that are encoded at a time.
PART = 16
#: Things that a ground is seen beside.
BESIDE = 4

#: Icon and dye: how a thing looks.
Look = tuple[str, str | None]
#: Row and column of a thing's upper left cell.
Corner = tuple[int, int]


class Cutouts(NamedTuple):
    """What collages are made of."""

    #: Of each of `cutout_keys`, what the thing adds to its background's latents, margin included; the last one is
    #: empty: (N + 1, SIDE, SIDE, C), bfloat16.
    things: Tensor
    #: By rows and columns, plain backgrounds at their darkest and brightest: (colours, 2, H, W, C), float32.
    grounds: dict[tuple[int, int], Tensor]


def looks() -> list[Look]:
    """Return how things can look."""
    dyes: tuple[str | None, ...] = (None, *DYES)
    return [(thing.icon, dye) for thing in THINGS for dye in (dyes if thing.colour is not None else dyes[:1])]


def cutout_keys() -> list[tuple[int, str, Look]]:
    """Return what there are cutouts of, in their order: in every number of cells, on every colour, every look.

    Combinations that are held out are among them; no scene that is composed asks for those.
    """
    return [(cells, colour, look) for cells in CUT_CELLS for colour in COLOURS for look in looks()]


class Cutter:
    """Draws plain pictures of things, and takes their latents apart."""

    def __init__(self, autoencoder: Autoencoder, art: Art) -> None:
        self.autoencoder, self._art = autoencoder, art

    def things(self, cells: int, colour: str, several: Sequence[Look]) -> Tensor:
        """Return the cutouts of things of so many cells on a colour: (len(several), SIDE, SIDE, C), bfloat16."""
        # Light moves latents nearly in a line, so this is the ground in its middle.
        ground = self.ground(colour, SHEET, SHEET).mean(0)
        corners = _corners(cells)
        # Those that share a picture are far apart in the list.
        count = -(-len(several) // len(corners))
        groups = [[several[(i + j * count) % len(several)] for j in range(len(corners))] for i in range(count)]
        reach = cells + 2 * MARGIN
        cut = torch.zeros(len(corners), count, SIDE, SIDE, ground.shape[-1], dtype=torch.bfloat16, device=ground.device)
        for first in range(0, count, PART):
            pictures = [
                self._picture(colour, SHEET, SHEET, 0.0, cells, list(zip(group, corners, strict=True)))
                for group in groups[first : first + PART]
            ]
            added = self._latents(pictures, SHEET, SHEET) - ground
            for j, (row, column) in enumerate(corners):
                top, left = row - MARGIN, column - MARGIN
                cut[j, first : first + PART, :reach, :reach] = added[:, top : top + reach, left : left + reach]
        return cut.flatten(0, 1)[: len(several)]

    def ground(self, colour: str, rows: int, columns: int) -> Tensor:
        """Return the latents of a plain background, darkest first: (2, H, W, C), float32.

        Each half is taken from pictures that have a thing in the other half, which takes 2 * (USUAL + MARGIN) cells.
        """
        assert max(rows, columns) >= 2 * (USUAL + MARGIN), "room for a thing in each half"
        icons = [thing.icon for thing in THINGS[:: -(-len(THINGS) // BESIDE)]]
        axis = 0 if rows > columns else 1
        middle, far = (rows, columns)[axis] // 2, (rows - USUAL, columns - USUAL)

        def beside(end: int, light: float) -> tuple[Tensor, ...]:
            """Return both halves of a background with a thing at one end of it, 0 or 1."""
            row, column = (far[0] * end, far[1] // 2) if axis == 0 else (far[0] // 2, far[1] * end)
            pictures = [
                self._picture(colour, rows, columns, light, USUAL, [((icon, None), (row, column))]) for icon in icons
            ]
            return self._latents(pictures, rows, columns).mean(0).tensor_split((middle,), axis)

        return torch.stack([torch.cat((beside(1, light)[0], beside(0, light)[1]), axis) for light in (-1.0, 1.0)])

    def _picture(
        self, colour: str, rows: int, columns: int, light: float, cells: int, things: list[tuple[Look, Corner]]
    ) -> NDArray[np.uint8]:
        """Return a plain background with things of so many cells on it, in levels: (height, width, 3)."""
        cell = SKETCH.token_px
        picture = background(colour, columns * cell, rows * cell, Mood(light=light))
        for (icon, dye), (row, column) in things:
            paste(picture, self._art.sprite(icon, cells * cell, dye), column * cell, row * cell)
        return np.round(picture * 255).astype(np.uint8)

    def _latents(self, pictures: list[NDArray[np.uint8]], rows: int, columns: int) -> Tensor:
        """Return pictures of so many rows and columns as latents: (B, H, W, C), float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
        latents = encoded(self.autoencoder, pixels.to(device_of(self.autoencoder)))
        return latents.float().unflatten(1, (rows, columns))


def _corners(cells: int) -> list[Corner]:
    """Return where things of so many cells stand on a sheet: two of usual size at its ends, others alone, as they stand
    on a canvas.
    """
    if cells != USUAL:
        return [((SHEET - cells) // 2,) * 2]
    return [(MARGIN,) * 2, (SHEET - MARGIN - cells,) * 2]


def make_cutouts(cutter: Cutter, folder: Path) -> Cutouts:
    """Return cutouts of every look, and grounds for every canvas, on the autoencoder's device.

    They are kept in `folder` with what they are of and where they are cut from, and made anew where either is another
    now; those of another encoder have another name and are left alone.
    """
    kept = folder / f"cutouts-{fingerprint(cutter.autoencoder.encoder)}.pt"
    canvases = [canvas_px(*size) for size in SIZES]
    grids = [(height // SKETCH.token_px, width // SKETCH.token_px) for width, height in canvases]
    wanted = (cutout_keys(), grids, SIDE, [_corners(cells) for cells in CUT_CELLS])
    if not kept.exists() or torch.load(kept, weights_only=True)[0] != wanted:
        several = looks()
        things = [cutter.things(cells, colour, several).cpu() for cells in CUT_CELLS for colour in COLOURS]
        empty = torch.zeros_like(things[0][:1])
        grounds = {grid: torch.stack([cutter.ground(colour, *grid).cpu() for colour in COLOURS]) for grid in grids}
        write_whole((wanted, torch.cat((*things, empty)), grounds), kept)
    _, things, grounds = torch.load(kept, map_location=device_of(cutter.autoencoder), weights_only=True)
    print(f"cutouts: {len(things) - 1}", flush=True)
    return Cutouts(things, grounds)
