"""The layout probe: an auxiliary loss on a hidden layer of the transformer, used in the fit only.

It takes long to learn to draw an object, and less to learn where it belongs; but until it is drawn well, the error of
the image hardly rewards its position. So a linear probe predicts from the image tokens of a hidden layer which object
covers each cell (`layout_labels`), and its loss is added. Yu et al. 2024 (2410.06940) showed that supervising a hidden
layer with the content of the image speeds up training; they take the targets from another network.

Dimension key: B batch, L image tokens, T text tokens, Q questions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Flux
from training.data.layout_labels import LABEL_CLASSES

#: Index of the single block whose output is probed. Without the loss, a linear probe could find row and column after
#: this block, but the object only after the next one (LOG.md, 2026-11-27), with two blocks left to draw it.
PROBED_BLOCK = 2


class LayoutProbe(nn.Module):
    """Predicts the layout labels of every cell from a hidden layer of a transformer."""

    def __init__(self, transformer: Flux) -> None:
        """transformer: observed by a forward hook; not a submodule."""
        super().__init__()
        self.answer = nn.Linear(SKETCH.transformer.hidden_size, sum(LABEL_CLASSES))
        self._hidden: Tensor | None = None
        transformer.single_blocks[PROBED_BLOCK].register_forward_hook(self._capture)

    def _capture(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self._hidden = output

    def loss(self, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over cells and questions, in nats, of the transformer's last forward pass: a
        scalar, float32. It can be called once per pass.

        labels: (B, L, Q), uint8, on the transformer's device.
        """
        assert self._hidden is not None, "a forward pass comes first"
        tokens = self._hidden[:, -labels.shape[1] :]  # (B, T + L, width) -> (B, L, width)
        # Released, since it holds the graph of the whole step.
        self._hidden = None
        # Normalised as the next block does it.
        logits = self.answer(F.layer_norm(tokens, tokens.shape[-1:])).float().flatten(0, 1)
        pairs = zip(logits.split(LABEL_CLASSES, dim=-1), labels.long().flatten(0, 1).unbind(-1), strict=True)
        return torch.stack([F.cross_entropy(*pair) for pair in pairs]).mean()
