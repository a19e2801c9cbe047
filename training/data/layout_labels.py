"""Layout labels: for each cell of a scene, which object covers it and which part of the object.

Dimension key: B batch, H rows, W columns, L image tokens (H * W), Q questions.
"""

import numpy as np
import torch
from torch import Tensor

from training.data.art import COLOUR_VARIANTS
from training.data.layout import BIG
from training.data.objects import OBJECTS
from training.data.scenes import Scene, cell_grid, place_objects

_ICONS = (None, *(obj.icon for obj in OBJECTS))
_VARIANTS = (None, *COLOUR_VARIANTS)
#: Number of classes of each of the five questions about a cell: object class, colour variant, side of the object in
#: cells, row and column of the cell within the object (from 1). Class 0 means no object or, for the variant, the usual
#: colour.
LABEL_CLASSES = (len(_ICONS), len(_VARIANTS), BIG + 1, BIG + 1, BIG + 1)


def layout_labels(scenes: list[Scene]) -> Tensor:
    """Return the labels of scenes of one canvas: (B, L, Q), uint8."""
    rows, columns = cell_grid(scenes[0])
    labels = np.zeros((len(scenes), rows, columns, len(LABEL_CLASSES)), dtype=np.uint8)
    for cells, scene in zip(labels, scenes, strict=True):
        # The front object is the last and overwrites the labels of the one behind it.
        for one in place_objects(scene):
            side = one.box.cells
            part = cells[one.box.row : one.box.row + side, one.box.column : one.box.column + side]
            part[..., 0] = _ICONS.index(one.subject.icon)
            part[..., 1] = _VARIANTS.index(one.subject.variant)
            part[..., 2] = side
            part[..., 3] = np.arange(1, side + 1)[:, None]
            part[..., 4] = np.arange(1, side + 1)
    return torch.from_numpy(labels).flatten(1, 2)
