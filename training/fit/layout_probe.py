"""What stands in each cell of a scene: questions that the middle of the transformer answers while it is fitted.

To paint a thing well takes long to learn, to know that it is to stand here does not; and while the one is missing, the
error of the picture hardly rewards the other. So a matrix reads from a hidden layer's image tokens what stands there,
and its error counts beside the picture's. That a hidden layer which is made to know what a picture shows trains faster
is the finding of Yu et al. 2024 (2410.06940), who take the answers from another network; scenes have them ready.

Dimension key: B batch, H rows, W columns, L image tokens (H * W), T text tokens, Q questions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from allaprima.flux import SKETCH, Flux
from training.data.layout_labels import ANSWERS

#: Single block, counted from 0, after which image tokens are read. Without such questions a matrix could tell row and
#: column after this one, and the thing only after the next (LOG.md, 2026-11-27); that left two blocks to paint it.
BLOCK = 2


class CellReader(nn.Module):
    """Answers every question about every cell from one hidden layer of a transformer."""

    def __init__(self, transformer: Flux) -> None:
        """transformer: read by a forward hook, not owned."""
        super().__init__()
        self.answer = nn.Linear(SKETCH.transformer.hidden_size, sum(ANSWERS))
        self._heard: Tensor | None = None
        transformer.single_blocks[BLOCK].register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _given: object, passed_on: Tensor) -> None:
        self._heard = passed_on

    def loss(self, right: Tensor) -> Tensor:
        """Return the mean cross-entropy over cells and questions, in nats, for the transformer's last forward pass: a
        scalar, float32. Once per pass.

        right: the right answers, (B, L, Q), uint8, on the transformer's device.
        """
        assert self._heard is not None, "there was a forward pass"
        tokens = self._heard[:, -right.shape[1] :]  # (B, T + L, width) -> (B, L, width)
        # Not kept: the whole graph of a step would be.
        self._heard = None
        # As a block reads it.
        answers = self.answer(F.layer_norm(tokens, tokens.shape[-1:])).float().flatten(0, 1).split(ANSWERS, dim=-1)
        questions = zip(answers, right.long().flatten(0, 1).unbind(-1), strict=True)
        return torch.stack([F.cross_entropy(answer, one) for answer, one in questions]).mean()
