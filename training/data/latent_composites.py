"""Collages: scenes put together from latents, a plain background and cutouts of things on it.

A thing of whole cells has nearly the same latents wherever it stands on a plain background. So pairs, counts and
whatever else stands side by side are had without drawing and encoding them, and without end: of 10,000 drawn pairs a
flow knew each by heart long before it had understood how any pair comes about.

Dimension key: B collages, S things at most, H rows, W columns, C latent values per token.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from training.data.backgrounds import COLOURS
from training.data.latent_sprites import CUT_CELLS, MARGIN, SIDE, Cutouts, cutout_keys
from training.data.scenes import COLLAGES_FROM, MOST, Scene, compose, mood, placed


class Plan(NamedTuple):
    """How collages of one canvas are laid."""

    #: Numbers of their colours: (B,), int64.
    colours: Tensor
    #: From 0, darkest, to 1, brightest: (B,), float32.
    light: Tensor
    #: Numbers of their cutouts, -1 for none: (B, S), int64.
    things: Tensor
    #: Cells of the things' upper left corners: (B, S) each, int64.
    rows: Tensor
    columns: Tensor


def is_collage(scene: Scene) -> bool:
    """Say whether a scene can be had as a collage: a plain background, and things on it that there are cutouts of."""
    if scene.background not in COLOURS or scene.relation == "front":
        return False
    return all(one.box.cells in CUT_CELLS and one.subject.accessory is None for one in placed(scene))


def compose_collage(rng: Generator, width: int, height: int) -> Scene:
    """Return a scene for a canvas that can be had as a collage, without combinations that are held out."""
    while True:
        scene = compose(int(rng.integers(COLLAGES_FROM, 2**62)), width, height)
        if is_collage(scene):
            return scene


class Planner:
    """Says how scenes are laid as collages."""

    def __init__(self) -> None:
        self._things = {key: number for number, key in enumerate(cutout_keys())}
        self._colours = {colour: number for number, colour in enumerate(COLOURS)}

    def plan(self, scenes: list[Scene]) -> Plan:
        """Return the plan of scenes of one canvas, of each of which `is_collage` is true."""
        things = np.full((len(scenes), MOST), -1)
        corners = np.zeros((2, len(scenes), MOST), dtype=np.int64)
        for i, scene in enumerate(scenes):
            for j, one in enumerate(placed(scene)):
                things[i, j] = self._things[one.box.cells, scene.background, (one.subject.icon, one.subject.dye)]
                corners[:, i, j] = one.box.row, one.box.column
        colours = torch.tensor([self._colours[scene.background] for scene in scenes])
        light = torch.tensor([(1 + mood(scene).light) / 2 for scene in scenes])
        return Plan(colours, light, torch.from_numpy(things), *torch.from_numpy(corners))


def laid(cutouts: Cutouts, plan: Plan, rows: int, columns: int) -> Tensor:
    """Return the latents of collages on a canvas of rows x columns cells: (B, H * W, C), float32.

    The plan is on the cutouts' device. Where a thing's margin meets another thing or its margin, both are added. Light
    is added to things as well as to the background, 3 % of the range of levels at most; a drawn scene lights the
    background only.
    """
    dark, bright = cutouts.grounds[rows, columns][plan.colours].unbind(1)  # (B, H, W, C)
    ground = torch.lerp(dark, bright, plan.light[:, None, None, None])
    # Things may stand at the edge, their margins beyond it, and what is empty of a small one's cutout.
    canvas = F.pad(ground, (0, 0, MARGIN, SIDE, MARGIN, SIDE))
    batch = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    side = torch.arange(SIDE, device=canvas.device)
    for things, row, column in zip(plan.things.unbind(1), plan.rows.unbind(1), plan.columns.unbind(1), strict=True):
        down, across = row[:, None, None] + side[:, None], column[:, None, None] + side
        # Number -1 is the last one, which is empty.
        canvas[batch, down, across] += cutouts.things[things].float()
    return canvas[:, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns].flatten(1, 2)
