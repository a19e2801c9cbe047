"""Layout labels of the cells of a scene."""

import torch

from training.data.art import COLOUR_VARIANTS
from training.data.layout_labels import LABEL_CLASSES, layout_labels
from training.data.objects import OBJECTS
from training.data.rendering import SQUARE
from training.data.scenes import Scene, Subject, cell_grid, place_objects

ICONS = [obj.icon for obj in OBJECTS]


def scene(*subjects, relation=None):
    return Scene("blue", subjects, relation, *SQUARE, (0.0,) * 8)


def test_cell_labels_give_object_variant_size_and_part():
    shown = scene(Subject("panda"), Subject("automobile", 1, "red"), relation="left")
    rows, columns = cell_grid(shown)

    (labels,) = layout_labels([shown]).unflatten(1, (rows, columns))

    assert bool((labels.amax((0, 1)) < torch.tensor(LABEL_CLASSES)).all())
    for one in place_objects(shown):
        box = one.box
        part = labels[box.row : box.row + box.cells, box.column : box.column + box.cells]
        assert set(part[..., 0].flatten().tolist()) == {1 + ICONS.index(one.subject.icon)}
        variant = 0 if one.subject.variant is None else 1 + list(COLOUR_VARIANTS).index(one.subject.variant)
        assert set(part[..., 1].flatten().tolist()) == {variant}
        assert set(part[..., 2].flatten().tolist()) == {box.cells}
        assert part[:, 0, 3].tolist() == part[0, :, 4].tolist() == list(range(1, box.cells + 1))
        part[:] = 0
    assert int(labels.amax()) == 0


def test_overlapping_cell_has_label_of_front_object():
    shown = scene(Subject("panda"), Subject("castle"), relation="front")
    rows, columns = cell_grid(shown)
    front = place_objects(shown)[-1]

    (labels,) = layout_labels([shown]).unflatten(1, (rows, columns))

    assert front.subject.icon == "panda"
    box = front.box
    covered = labels[box.row : box.row + box.cells, box.column : box.column + box.cells, 0]
    assert set(covered.flatten().tolist()) == {1 + ICONS.index("panda")}
    assert 1 + ICONS.index("castle") in labels[..., 0]
