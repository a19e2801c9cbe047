"""Latent composites: scenes assembled from the latents of a plain background and latent sprites of objects.

An object that covers whole cells of a plain background has nearly the same latents at every position. Composites need
no drawing and encoding, so their number is unlimited. This matters because a flow memorised each of 10,000 drawn pairs
of objects long before it generalised to other pairs.

Dimension key: B composites, S objects at most, H rows, W columns, C latent values per token.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from training.data.backgrounds import COLOURS
from training.data.latent_sprites import MARGIN, SPRITE_CELLS, SPRITE_SIDE, LatentSprites, sprite_keys
from training.data.scenes import COMPOSITES_FROM, MAX_OBJECTS, Scene, background_params, compose, place_objects


class CompositePlan(NamedTuple):
    """The parts of each composite of one canvas, as indices into `LatentSprites`."""

    #: Indices of the background colours: (B,), int64.
    colours: Tensor
    #: Brightness of the backgrounds, 0 (darkest) to 1: (B,), float32.
    light: Tensor
    #: Indices of the sprites, -1 for none: (B, S), int64.
    sprites: Tensor
    #: Row and column of each object's upper left cell: (B, S) each, int64.
    rows: Tensor
    columns: Tensor


def is_compositable(scene: Scene) -> bool:
    """Whether a scene can be assembled from latents: its background is plain, and each object has a sprite."""
    if scene.background not in COLOURS or scene.relation == "front":
        return False
    return all(placed.box.cells in SPRITE_CELLS and placed.subject.accessory is None for placed in place_objects(scene))


def compose_compositable(rng: Generator, width: int, height: int) -> Scene:
    """Return a random compositable scene without held-out combinations. width, height: of the canvas, in pixels."""
    while True:
        scene = compose(int(rng.integers(COMPOSITES_FROM, 2**62)), width, height)
        if is_compositable(scene):
            return scene


class CompositePlanner:
    """Converts scenes to plans."""

    def __init__(self) -> None:
        self._sprites = {key: index for index, key in enumerate(sprite_keys())}
        self._colours = {colour: index for index, colour in enumerate(COLOURS)}

    def plan(self, scenes: list[Scene]) -> CompositePlan:
        """Return the plan of compositable scenes. All scenes must have the same canvas."""
        sprites = np.full((len(scenes), MAX_OBJECTS), -1)
        corners = np.zeros((2, len(scenes), MAX_OBJECTS), dtype=np.int64)
        for i, scene in enumerate(scenes):
            for j, placed in enumerate(place_objects(scene)):
                sprites[i, j] = self._sprites[
                    placed.box.cells, scene.background, (placed.subject.icon, placed.subject.variant)
                ]
                corners[:, i, j] = placed.box.row, placed.box.column
        colours = torch.tensor([self._colours[scene.background] for scene in scenes])
        light = torch.tensor([(1 + background_params(scene).light) / 2 for scene in scenes])
        return CompositePlan(colours, light, torch.from_numpy(sprites), *torch.from_numpy(corners))


def composite(latents: LatentSprites, plan: CompositePlan, rows: int, columns: int) -> Tensor:
    """Return the latents of composites on a canvas of rows x columns cells: (B, H * W, C), float32.

    The plan must be on the device of the sprites. Sprites are added where the margins of objects overlap. The light
    brightens the objects as well as the background, by at most 3 % of the range of levels; in a drawn scene it
    brightens only the background.
    """
    dark, bright = latents.backgrounds[rows, columns][plan.colours].unbind(1)  # (B, H, W, C)
    background = torch.lerp(dark, bright, plan.light[:, None, None, None])
    # A sprite's margin, and the empty part of a small object's sprite, can extend beyond the canvas, which is padded.
    canvas = F.pad(background, (0, 0, MARGIN, SPRITE_SIDE, MARGIN, SPRITE_SIDE))
    batch = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    side = torch.arange(SPRITE_SIDE, device=canvas.device)
    for sprite, row, column in zip(plan.sprites.unbind(1), plan.rows.unbind(1), plan.columns.unbind(1), strict=True):
        down, across = row[:, None, None] + side[:, None], column[:, None, None] + side
        # Index -1, for no object, selects the last sprite, which is empty.
        canvas[batch, down, across] += latents.sprites[sprite].float()
    return canvas[:, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns].flatten(1, 2)
