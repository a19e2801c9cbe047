"""Encodes images as latents of the autoencoder.

Dimension key: B batch, L image tokens, C latent values per token.
"""

import hashlib

import torch
from torch import Tensor, nn

from allaprima.flux import Autoencoder
from allaprima.flux.latents import pack
from training.data.rendering import to_signed


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next(network.parameters()).device


def fingerprint(network: nn.Module) -> str:
    """Return eight hex digits of a hash of a network's weights."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


@torch.no_grad()
def encode_pixels(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """Return the packed latents of images: (B, 3, height, width), levels 0 to 255 -> (B, L, C), bfloat16."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        z = autoencoder.encode(to_signed(pixels).contiguous(memory_format=torch.channels_last))
    return pack(z).bfloat16()
