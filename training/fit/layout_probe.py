"""The layout probe: an auxiliary loss on a hidden layer of the transformer, used in the fit only.

The model learns the position of an object faster than its appearance, but until the appearance is right, the position
hardly reduces the error of the image. So a linear probe predicts from the image tokens of a hidden layer which object
covers each cell (`layout_labels`), and the fit adds the probe's loss. Yu et al. 2024 (2410.06940) showed that
supervising a hidden layer with the content of the image speeds up training; there, another network computes the
targets.

Dimension key: B batch, L image tokens, T text tokens, Q questions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Flux
from training.data.layout_labels import LABEL_CLASSES

#: Index of the single block whose output is the probe's input. Without the loss, a linear probe could predict row and
#: column after this block, but the object only after the next one (LOG.md, 2026-11-27), two blocks before the last.
PROBED_BLOCK = 2


class LayoutProbe(nn.Module):
    """Predicts the layout labels of every cell from a hidden layer of a transformer."""

    def __init__(self, transformer: Flux) -> None:
        """transformer: the probe adds a forward hook to it; it does not become a submodule of the probe."""
        super().__init__()
        self.answer = nn.Linear(SKETCH.transformer.hidden_size, sum(LABEL_CLASSES))
        self._hidden: Tensor | None = None
        transformer.single_blocks[PROBED_BLOCK].register_forward_hook(self._capture)

    def _capture(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self._hidden = output

    def loss(self, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over cells and questions, of the transformer's last pass: a scalar, in nats.

        This can be called once per forward pass. labels: (B, L, Q), uint8, on the transformer's device.
        """
        assert self._hidden is not None, "the transformer has made no forward pass since the last call"
        tokens = self._hidden[:, -labels.shape[1] :]  # (B, T + L, width) -> (B, L, width)
        # The reference is released, since it keeps the autograd graph of the whole step alive.
        self._hidden = None
        # The next block normalises its input in the same way.
        logits = self.answer(F.layer_norm(tokens, tokens.shape[-1:])).float().flatten(0, 1)
        pairs = zip(logits.split(LABEL_CLASSES, dim=-1), labels.long().flatten(0, 1).unbind(-1), strict=True)
        return torch.stack([F.cross_entropy(*pair) for pair in pairs]).mean()
