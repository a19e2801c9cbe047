"""The T5 v1.1 encoder, which maps token ids to one vector per token.

Each layer is preceded by an RMS norm. All blocks use the relative position biases of block 0. Attention logits are not
scaled, the MLP is a gated GELU, and linears have no biases. Attention has **no mask**: FLUX was trained with attention
to padding. Source: Raffel et al. 2020 (1910.10683) and Shazeer 2020 (2002.05202); attribute names of the Hugging Face
checkpoint.

Dimension key: B batch, T tokens, W d_model, H heads, D d_kv.
"""

import math

import torch
from torch import Tensor, nn

from allaprima.flux.cancel import CancelCheck, never_cancelled
from allaprima.flux.config import T5Config
from allaprima.kernels import Epilogue, Linear, attention, rms_norm


class T5LayerNorm(nn.Module):
    """RMS norm with a learned scale, without mean subtraction and bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        return rms_norm(x, self.weight, self.eps)


def relative_position_bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of each distance (key position minus query position).

    The second half of the buckets is for positive distances. Within each half, the first half of the buckets has one
    distance per bucket, and the ranges of the others grow logarithmically up to `max_distance`. distance: any shape,
    int64. Returns the same shape, int64. Source: huggingface/transformers `modeling_t5.py`,
    `_relative_position_bucket`.
    """
    half = num_buckets // 2
    exact = half // 2
    bucket = (distance > 0).long() * half
    size = distance.abs()
    ratio = torch.log(size.float().clamp(min=1) / exact) / math.log(max_distance / exact)
    large = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return bucket + torch.where(size < exact, size, large)


class T5Attention(nn.Module):
    """Multi-head attention with an additive position bias and no scaling."""

    def __init__(self, config: T5Config, has_relative_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.q = Linear(config.d_model, inner, bias=False)
        self.k = Linear(config.d_model, inner, bias=False)
        self.v = Linear(config.d_model, inner, bias=False)
        self.o = Linear(inner, config.d_model, bias=False)
        if has_relative_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, bias: Tensor, epilogue: Epilogue) -> Tensor:
        """x: (B, T, W); bias: (1, H, T, T); epilogue: applied by the output projection. Returns (B, T, W)."""
        q, k, v = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for proj in (self.q, self.k, self.v)
        )  # (B, H, T, D)
        return self.o(attention(q, k, v, bias=bias, scale=1.0).transpose(1, 2).flatten(2), epilogue)


class T5LayerSelfAttention(nn.Module):
    """RMS norm and self-attention, with a residual connection."""

    def __init__(self, config: T5Config, has_relative_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, has_relative_bias)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        return self.SelfAttention(self.layer_norm(x), bias, Epilogue(residual=x))


class T5DenseGatedActDense(nn.Module):
    """The gated MLP: wo(gelu(wi_0 x) * wi_1 x), with the tanh form of GELU."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = Linear(config.d_model, config.d_ff, bias=False)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        """(B, T, W) -> (B, T, W). epilogue: applied by the last linear."""
        return self.wo(self.wi_0(x, Epilogue(gelu=True)) * self.wi_1(x), epilogue)


class T5LayerFF(nn.Module):
    """RMS norm and gated MLP, with a residual connection."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = T5DenseGatedActDense(config)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        return self.DenseReluDense(self.layer_norm(x), Epilogue(residual=x))


class T5Block(nn.Module):
    """A block of the encoder: self-attention, then the gated MLP."""

    def __init__(self, config: T5Config, has_relative_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList((T5LayerSelfAttention(config, has_relative_bias), T5LayerFF(config)))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        return self.layer[1](self.layer[0](x, bias))


class T5Stack(nn.Module):
    """All blocks, and the final norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.block = nn.ModuleList(T5Block(config, has_relative_bias=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def position_bias(self, length: int) -> Tensor:
        """Return the bias of every pair of positions, which all blocks add to their logits: (1, H, T, T), float32."""
        table = self.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias")
        assert isinstance(table, nn.Embedding)
        position = torch.arange(length, device=table.weight.device)
        buckets = relative_position_bucket(
            position[None, :] - position[:, None],
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
        )
        return table(buckets).permute(2, 0, 1)[None].float().contiguous()

    def forward(self, x: Tensor, check_cancelled: CancelCheck) -> Tensor:
        """(B, T, W) -> (B, T, W). Calls `check_cancelled` before every block."""
        bias = self.position_bias(x.shape[1])
        for block in self.block:
            check_cancelled()
            x = block(x, bias)
        return self.final_layer_norm(x)


class T5Encoder(nn.Module):
    """The token embedding and the stack of blocks."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Stack(config)

    def forward(self, ids: Tensor, check_cancelled: CancelCheck = never_cancelled) -> Tensor:
        """Encode padded token ids (B, T), int64, to (B, T, W) in the dtype of the weights."""
        return self.encoder(self.shared(ids), check_cancelled)
