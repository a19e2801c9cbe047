"""The layout probe of the transformer."""

import torch
from torch import nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Flux
from allaprima.flux.latents import image_ids, text_ids
from training.data.layout_labels import LABEL_CLASSES, layout_labels
from training.data.rendering import SQUARE
from training.data.scenes import Scene, Subject, cell_grid
from training.fit.layout_probe import PROBED_BLOCK, LayoutProbe


def scene(*subjects, relation=None):
    return Scene("blue", subjects, relation, *SQUARE, (0.0,) * 8)


def test_the_probe_reads_image_tokens_and_not_text_tokens():
    transformer = Flux(SKETCH.transformer)
    transformer.single_blocks[PROBED_BLOCK] = nn.Identity()
    probe = LayoutProbe(transformer)
    labels = layout_labels([scene(Subject("panda", 2)), scene(Subject("automobile", 3, "red"))])
    # The image tokens equal their labels; the text tokens before them have other labels.
    one_hot = torch.cat(
        [F.one_hot(one.long(), count) for one, count in zip(labels.unbind(-1), LABEL_CLASSES, strict=True)], dim=-1
    )
    image = F.pad(one_hot.float(), (0, SKETCH.transformer.hidden_size - sum(LABEL_CLASSES)))
    nn.init.eye_(probe.answer.weight)
    probe.answer.weight.data *= 9

    transformer.single_blocks[PROBED_BLOCK](torch.cat((image[:, 70:75].roll(1, 0), image), dim=1))
    loss = probe.loss(labels)

    assert loss.item() < 0.01
    transformer.single_blocks[PROBED_BLOCK](torch.cat((image, image[:, 70:75]), dim=1))
    assert probe.loss(labels).item() > 0.5


def test_the_loss_has_gradients_in_the_probed_block_and_those_before_it_only():
    torch.manual_seed(0)
    transformer = Flux(SKETCH.transformer)
    probe = LayoutProbe(transformer)
    shown = scene(Subject("panda", 2))
    labels, text = layout_labels([shown]), 5
    config = SKETCH.transformer

    transformer(
        torch.randn(1, labels.shape[1], config.in_channels),
        image_ids(*cell_grid(shown)),
        torch.randn(1, text, config.context_in_dim),
        text_ids(text),
        torch.ones(1),
        torch.randn(1, config.vec_in_dim),
    )
    loss = probe.loss(labels)
    loss.backward()

    assert len(transformer.single_blocks) > PROBED_BLOCK + 1
    has_gradient = [any(p.grad is not None for p in block.parameters()) for block in transformer.single_blocks]
    assert has_gradient[: PROBED_BLOCK + 1] == [True] * (PROBED_BLOCK + 1)
    assert not any(has_gradient[PROBED_BLOCK + 1 :])
