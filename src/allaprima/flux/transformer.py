"""FLUX's rectified-flow transformer: image and text tokens in, the velocity of the image tokens out.

Source: black-forest-labs/flux `model.py` (commit 802fb47); parameter names are its checkpoint's.

Dimension key: B batch, L image tokens, T text tokens, C latent values per token, W hidden width.
"""

import torch
from torch import Tensor, nn

from allaprima.flux.check import Check, no_check
from allaprima.flux.config import TransformerConfig
from allaprima.flux.layers import (
    DoubleStreamBlock,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    rotary,
    timestep_embedding,
)

#: Width of the sinusoidal time embedding, the same in every published FLUX.
TIME_WIDTH = 256


class Flux(nn.Module):
    """Predict the velocity of the flow from noise to image, for one time per sample."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.hidden_size, config.num_heads
        mlp_hidden = int(width * config.mlp_ratio)
        self.img_in = nn.Linear(config.in_channels, width)
        self.time_in = MLPEmbedder(TIME_WIDTH, width)
        self.vector_in = MLPEmbedder(config.vec_in_dim, width)
        self.txt_in = nn.Linear(config.context_in_dim, width)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(width, heads, mlp_hidden) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(width, heads, mlp_hidden) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = LastLayer(width, config.in_channels)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        check: Check = no_check,
    ) -> Tensor:
        """Return the velocity d img / d t at the given times, in the dtype of the weights; or the finished image, where
        the weights were fitted to that (`ModelConfig.predicts`).

        img: (B, L, C), packed latents; img_ids: (B, L, 3); txt: (B, T, context_in_dim); txt_ids: (B, T, 3);
        timesteps: (B,), in [0, 1], 1 is noise; y: (B, vec_in_dim). Calls `check` before every block.
        """
        dtype = self.img_in.weight.dtype
        pe = rotary(torch.cat((txt_ids, img_ids), dim=1), self.config.axes_dim, self.config.theta)
        vec = self.time_in(timestep_embedding(timesteps, TIME_WIDTH).to(dtype)) + self.vector_in(y.to(dtype))
        img = self.img_in(img.to(dtype))  # (B, L, W)
        txt = self.txt_in(txt.to(dtype))  # (B, T, W)
        for block in self.double_blocks:
            check()
            img, txt = block(img, txt, vec, pe)
        x = torch.cat((txt, img), dim=1)  # (B, T + L, W)
        for block in self.single_blocks:
            check()
            x = block(x, vec, pe)
        return self.final_layer(x[:, txt.shape[1] :], vec)  # (B, L, C)
