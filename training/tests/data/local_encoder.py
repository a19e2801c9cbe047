"""An autoencoder whose encoder is local to one cell, so that other cells don't affect its latents."""

import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH


class LocalAutoencoder(nn.Module):
    """Encodes by one convolution without overlap; it cannot decode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        px = SKETCH.token_px // 2
        self.encoder = nn.Conv2d(3, SKETCH.autoencoder.z_channels, px, stride=px, bias=False)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, channels, H, W), two latents per cell in each direction."""
        return self.encoder(pixels)
