"""The reconstruction error of an autoencoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from allaprima.flux import Autoencoder
from training.data.latents import device_of
from training.data.rendering import to_signed


@torch.no_grad()
def score_psnr(model: Autoencoder, pixels: Tensor) -> float:
    """Return the mean PSNR in dB of images that are encoded and decoded. pixels: (N, 3, height, width), uint8."""
    device = device_of(model)
    signed = [to_signed(one[None].to(device)) for one in pixels]
    errors = [F.mse_loss(model.decode(model.encode(one)).clamp(-1, 1), one) for one in signed]
    return (10 * torch.log10(4 / torch.stack(errors))).mean().item()
