"""What stands in each cell of a scene.

Dimension key: B batch, H rows, W columns, L image tokens (H * W), Q questions.
"""

import numpy as np
import torch
from torch import Tensor

from training.data.art import DYES
from training.data.layout import BIG
from training.data.objects import THINGS
from training.data.scenes import Scene, grid, placed

_ICONS = (None, *(thing.icon for thing in THINGS))
_DYES = (None, *DYES)
#: Number of answers to each question: which thing, in which colour, how many cells wide, which of its rows, which of
#: its columns; 0 where nothing stands.
ANSWERS = (len(_ICONS), len(_DYES), BIG + 1, BIG + 1, BIG + 1)


def right_answers(scenes: list[Scene]) -> Tensor:
    """Return what is right about scenes of one canvas: (B, L, Q), uint8."""
    rows, columns = grid(scenes[0])
    told = np.zeros((len(scenes), rows, columns, len(ANSWERS)), dtype=np.uint8)
    for cells, scene in zip(told, scenes, strict=True):
        # Those in front come last, and cover others.
        for one in placed(scene):
            side = one.box.cells
            part = cells[one.box.row : one.box.row + side, one.box.column : one.box.column + side]
            part[..., 0] = _ICONS.index(one.subject.icon)
            part[..., 1] = _DYES.index(one.subject.dye)
            part[..., 2] = side
            part[..., 3] = np.arange(1, side + 1)[:, None]
            part[..., 4] = np.arange(1, side + 1)
    return torch.from_numpy(told).flatten(1, 2)
