"""An autoencoder whose latents of a cell depend only on the pixels of that cell."""

import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH


class LocalAutoencoder(nn.Module):
    """Encodes by one non-overlapping convolution; it has no decoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        px = SKETCH.token_px // 2
        self.encoder = nn.Conv2d(3, SKETCH.autoencoder.z_channels, px, stride=px, bias=False)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, channels, H, W), two latents per cell in each direction."""
        return self.encoder(pixels)
