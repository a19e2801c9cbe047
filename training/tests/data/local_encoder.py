"""An autoencoder whose encoder sees one cell at a time: what stands elsewhere makes no difference to it."""

import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH


class LocalAutoencoder(nn.Module):
    """Encodes by one convolution without overlap; stands where only `encode` is wanted."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        px = SKETCH.token_px // 2
        self.encoder = nn.Conv2d(3, SKETCH.autoencoder.z_channels, px, stride=px, bias=False)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, channels, H, W), two latents a cell across and down."""
        return self.encoder(pixels)
