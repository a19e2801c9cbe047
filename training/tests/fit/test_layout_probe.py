"""What the transformer's middle is asked about the cells of a scene."""

import torch
from torch import nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Flux
from allaprima.flux.latents import image_ids, text_ids
from training.data.art import COLOUR_VARIANTS
from training.data.layout_labels import LABEL_CLASSES, layout_labels
from training.data.objects import OBJECTS
from training.data.rendering import SQUARE
from training.data.scenes import Scene, Subject, cell_grid, place_objects
from training.fit.layout_probe import PROBED_BLOCK, LayoutProbe

ICONS = [obj.icon for obj in OBJECTS]


def scene(*subjects, relation=None):
    return Scene("blue", subjects, relation, *SQUARE, (0.0,) * 8)


def test_answers_say_what_stands_in_a_cell_in_which_colour_how_large_and_which_part_of_it():
    shown = scene(Subject("panda"), Subject("automobile", 1, "red"), relation="left")
    rows, columns = cell_grid(shown)

    (told,) = layout_labels([shown]).unflatten(1, (rows, columns))

    assert bool((told.amax((0, 1)) < torch.tensor(LABEL_CLASSES)).all())
    for one in place_objects(shown):
        box = one.box
        part = told[box.row : box.row + box.cells, box.column : box.column + box.cells]
        assert set(part[..., 0].flatten().tolist()) == {1 + ICONS.index(one.subject.icon)}
        variant = 0 if one.subject.variant is None else 1 + list(COLOUR_VARIANTS).index(one.subject.variant)
        assert set(part[..., 1].flatten().tolist()) == {variant}
        assert set(part[..., 2].flatten().tolist()) == {box.cells}
        assert part[:, 0, 3].tolist() == part[0, :, 4].tolist() == list(range(1, box.cells + 1))
        part[:] = 0
    assert int(told.amax()) == 0


def test_of_two_things_in_one_cell_the_front_one_is_meant():
    shown = scene(Subject("panda"), Subject("castle"), relation="front")
    rows, columns = cell_grid(shown)
    front = place_objects(shown)[-1]

    (told,) = layout_labels([shown]).unflatten(1, (rows, columns))

    assert front.subject.icon == "panda"
    box = front.box
    covered = told[box.row : box.row + box.cells, box.column : box.column + box.cells, 0]
    assert set(covered.flatten().tolist()) == {1 + ICONS.index("panda")}
    assert 1 + ICONS.index("castle") in told[..., 0]


def test_of_the_tokens_the_images_are_read_question_by_question():
    transformer = Flux(SKETCH.transformer)
    transformer.single_blocks[PROBED_BLOCK] = nn.Identity()
    reader = LayoutProbe(transformer)
    right = layout_labels([scene(Subject("panda", 2)), scene(Subject("automobile", 3, "red"))])
    # Tokens that hold their answers as they are; the text's before them would say otherwise.
    told = torch.cat(
        [F.one_hot(one.long(), count) for one, count in zip(right.unbind(-1), LABEL_CLASSES, strict=True)], dim=-1
    )
    image = F.pad(told.float(), (0, SKETCH.transformer.hidden_size - sum(LABEL_CLASSES)))
    nn.init.eye_(reader.answer.weight)
    reader.answer.weight.data *= 9

    transformer.single_blocks[PROBED_BLOCK](torch.cat((image[:, 70:75].roll(1, 0), image), dim=1))
    loss = reader.loss(right)

    assert loss.item() < 0.01
    transformer.single_blocks[PROBED_BLOCK](torch.cat((image, image[:, 70:75]), dim=1))
    assert reader.loss(right).item() > 0.5


def test_what_is_read_teaches_the_blocks_before_it_and_none_behind():
    torch.manual_seed(0)
    transformer = Flux(SKETCH.transformer)
    reader = LayoutProbe(transformer)
    shown = scene(Subject("panda", 2))
    right, text = layout_labels([shown]), 5
    config = SKETCH.transformer

    transformer(
        torch.randn(1, right.shape[1], config.in_channels),
        image_ids(*cell_grid(shown)),
        torch.randn(1, text, config.context_in_dim),
        text_ids(text),
        torch.ones(1),
        torch.randn(1, config.vec_in_dim),
    )
    loss = reader.loss(right)
    loss.backward()

    assert len(transformer.single_blocks) > PROBED_BLOCK + 1
    taught = [any(p.grad is not None for p in block.parameters()) for block in transformer.single_blocks]
    assert taught[: PROBED_BLOCK + 1] == [True] * (PROBED_BLOCK + 1)
    assert not any(taught[PROBED_BLOCK + 1 :])
