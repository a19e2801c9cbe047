"""The initial latents of a request: seeded Gaussian noise."""

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
    #: One tensor per image: (1, rows * columns, latent values per token), float32.
    latents: list[Tensor]
    #: Number of finished steps.
    step: int = 0
    #: The noise-free latents of each image that the last step predicted, like `latents`. Empty before the first step.
    x0_pred: list[Tensor] = field(default_factory=list)


def init_latents(request: GenerationRequest, config: ModelConfig, device: torch.device) -> LatentState:
    """Return Gaussian noise for every image of a request.

    The noise of image i is sampled in float32 on the CPU by a new generator with the seed `request.seed + i`, and then
    copied to the device. It depends on the seed and the image size alone, not on the device, the precision or the
    number of images.
    """
    rows, columns = token_grid(request.width, request.height, config.token_px, config.native_tokens)
    channels = config.autoencoder.z_channels
    latents = [pack(noise(request.seed + i, channels, rows, columns)[None]).to(device) for i in range(request.count)]
    return LatentState(rows, columns, latents)
