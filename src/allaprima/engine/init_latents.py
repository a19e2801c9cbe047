"""The latents from which a request is denoised."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.flux import ModelConfig
from allaprima.flux.latents import noise, pack, token_grid


@dataclass(slots=True)
class LatentState:
    """The latents of one request between two denoising steps, one tensor per image."""

    #: Size of the token grid.
    rows: int
    columns: int
    #: (1, rows * columns, latent values per token) each, float32.
    latents: list[Tensor]
    #: Steps done so far.
    step: int = 0
    #: Each image's noise-free latents as the last step predicted them, in the shape of `latents`; empty before it.
    x0_pred: list[Tensor] = field(default_factory=list)


def init_latents(request: GenerationRequest, config: ModelConfig, device: torch.device) -> LatentState:
    """Return Gaussian noise for every image of a request.

    Image i is drawn in float32 by a CPU generator of its own, seeded with seed + i, and then copied to the device. So
    the noise depends on the seed and the size alone: not on the device, the precision or the number of images.
    """
    rows, columns = token_grid(request.width, request.height, config.token_px, config.native_tokens)
    channels = config.autoencoder.z_channels
    latents = [pack(noise(request.seed + i, channels, rows, columns)[None]).to(device) for i in range(request.count)]
    return LatentState(rows, columns, latents)
