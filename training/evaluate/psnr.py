"""How well an autoencoder restores images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from allaprima.flux import Autoencoder
from training.data.latents import device_of
from training.data.rendering import to_signed


@torch.no_grad()
def score_psnr(model: Autoencoder, pixels: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of encoding and decoding whole pictures; uint8 in."""
    device = device_of(model)
    signed = [to_signed(one[None].to(device)) for one in pixels]
    errors = [F.mse_loss(model.decode(model.encode(one)).clamp(-1, 1), one) for one in signed]
    return (10 * torch.log10(4 / torch.stack(errors))).mean().item()
