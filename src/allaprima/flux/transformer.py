"""FLUX's rectified-flow transformer, which predicts the velocity of image tokens from image and text tokens.

Source: black-forest-labs/flux `model.py` (commit 802fb47). Parameter names are those of its checkpoint.

Dimension key: B batch, L image tokens, T text tokens, C latent values per token, W hidden width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allaprima.flux.cancel import CancelCheck, never_cancelled
from allaprima.flux.config import TransformerConfig
from allaprima.flux.layers import (
    DoubleStreamBlock,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    latent_stats,
    position_features,
    rotary,
    timestep_embedding,
)
from allaprima.kernels import Linear

#: Width of the sinusoidal time embedding in every published FLUX.
TIME_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Modulations:
    """The adaLN modulations of all blocks. The transformer depends on the time and the pooled vector only through them.

    The tensors have one row per sample and the dtype of the weights.
    """

    #: For each double block, the modulations of image and text: (B, 6 W) each.
    double: tuple[tuple[Tensor, Tensor], ...]
    #: For each single block: (B, 3 W).
    single: tuple[Tensor, ...]
    #: For the last layer: (B, 2 W).
    final: Tensor

    def row(self, index: int) -> "Modulations":
        """Return the modulations of sample `index` as a batch of one."""
        rows = slice(index, index + 1)
        return Modulations(
            tuple((img[rows], txt[rows]) for img, txt in self.double),
            tuple(single[rows] for single in self.single),
            self.final[rows],
        )

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(
            tensor.nbytes for tensor in (*(one for pair in self.double for one in pair), *self.single, self.final)
        )


class Flux(nn.Module):
    """Predicts the velocity of the flow from noise to image, at one time per sample.

    `modulations` computes everything that depends on the time and the pooled vector, and `velocity` the rest. An image
    needs one call of `modulations`, with the times of all its steps as a batch. The linears of the modulations are 27 %
    of FLUX.1's weights, and one batch reads them once instead of once per step.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.hidden_size, config.num_heads
        mlp_hidden = int(width * config.mlp_ratio)
        self.img_in = Linear(config.input_channels, width)
        self.time_in = MLPEmbedder(TIME_WIDTH, width)
        self.vector_in = MLPEmbedder(config.vec_in_dim, width)
        self.txt_in = Linear(config.context_in_dim, width)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(width, heads, mlp_hidden) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(width, heads, mlp_hidden) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = LastLayer(width, config.in_channels)

    def modulations(self, timesteps: Tensor, y: Tensor, check_cancelled: CancelCheck = never_cancelled) -> Modulations:
        """Return the modulations at the given times. Calls `check_cancelled` before every block.

        timesteps: (B,), in [0, 1]; 1 is noise. y: (B, vec_in_dim), or (1, vec_in_dim) for the whole batch.
        """
        dtype = self.img_in.weight.dtype
        vec = self.time_in(timestep_embedding(timesteps, TIME_WIDTH).to(dtype)) + self.vector_in(y.to(dtype))
        double, single = [], []
        for block in self.double_blocks:
            check_cancelled()
            assert isinstance(block, DoubleStreamBlock)
            double.append((block.img_mod(vec), block.txt_mod(vec)))
        for block in self.single_blocks:
            check_cancelled()
            assert isinstance(block, SingleStreamBlock)
            single.append(block.modulation(vec))
        return Modulations(tuple(double), tuple(single), self.final_layer.adaLN_modulation(vec))

    def velocity(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        modulations: Modulations,
        check_cancelled: CancelCheck = never_cancelled,
    ) -> Tensor:
        """Return the velocity d img / d t, or the clean latents if the model predicts those (`ModelConfig.predicts`).

        img: (B, L, C), packed latents; img_ids: (B, L, 3); txt: (B, T, context_in_dim); txt_ids: (B, T, 3).
        Returns (B, L, C), in the dtype of the weights. Calls `check_cancelled` before every block.
        """
        dtype = self.img_in.weight.dtype
        pe = rotary(torch.cat((txt_ids, img_ids), dim=1), self.config.axes_dim, self.config.theta)
        img = self.img_in(self._input_features(img, img_ids).to(dtype))  # (B, L, W)
        txt = self.txt_in(txt.to(dtype))  # (B, T, W)
        for block, (img_mod, txt_mod) in zip(self.double_blocks, modulations.double, strict=True):
            check_cancelled()
            img, txt = block(img, txt, img_mod, txt_mod, pe)
        x = torch.cat((txt, img), dim=1)  # (B, T + L, W)
        for block, modulation in zip(self.single_blocks, modulations.single, strict=True):
            check_cancelled()
            x = block(x, modulation, pe)
        return self.final_layer(x[:, txt.shape[1] :], modulations.final)  # (B, L, C)

    def _input_features(self, img: Tensor, img_ids: Tensor) -> Tensor:
        """Return the latents, position features and latent statistics of each image token: (B, L, input_channels)."""
        parts = [img]
        if self.config.pos_embed_channels:
            parts.append(position_features(img_ids, self.config.pos_embed_channels))
        if self.config.latent_stats:
            parts.append(latent_stats(img))
        if len(parts) == 1:
            return img
        shape = (len(img), img.shape[1], -1)
        return torch.cat([part.to(img.dtype).expand(shape) for part in parts], dim=-1)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        check_cancelled: CancelCheck = never_cancelled,
    ) -> Tensor:
        """Return `velocity` at the given times. timesteps: (B,); y: (B, vec_in_dim), the pooled vectors."""
        return self.velocity(
            img, img_ids, txt, txt_ids, self.modulations(timesteps, y, check_cancelled), check_cancelled
        )
