"""CLIP's text encoder, which maps token ids to one pooled vector per prompt.

It has a layer norm before each sublayer, a causal mask, quick GELU and learned positions. The pooled vector is the
final norm's output at the first end token; FLUX does not use CLIP's projection of it. Source: Radford et al. 2021
(2103.00020); attribute names of the Hugging Face checkpoint, `text_model.` included.

Dimension key: B batch, T tokens, W hidden width, H heads.
"""

import torch
from torch import Tensor, nn

from allaprima.flux.cancel import CancelCheck, never_cancelled
from allaprima.flux.config import CLIPConfig
from allaprima.kernels import Linear


class CLIPAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        q, k, v = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(
            nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        )


class CLIPMLP(nn.Module):
    """Linear, quick GELU (x times sigmoid of 1.702 x), linear."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        hidden = self.fc1(x)
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden))


class CLIPEncoderLayer(nn.Module):
    """Attention and MLP, each with a layer norm before it and a residual connection."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEmbeddings(nn.Module):
    """The sum of token and position embeddings."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.length, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T), int64 -> (B, T, W)."""
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class CLIPStack(nn.Module):
    """The encoder's layers."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(config.num_layers))


class CLIPTextTransformer(nn.Module):
    """Embeddings, layers, and the final norm."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.embeddings = CLIPEmbeddings(config)
        self.encoder = CLIPStack(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: Tensor, check_cancelled: CancelCheck) -> Tensor:
        """(B, T), int64 -> (B, T, W). Calls `check_cancelled` before every layer."""
        x = self.embeddings(ids)
        for layer in self.encoder.layers:
            check_cancelled()
            x = layer(x)
        return self.final_layer_norm(x)


class CLIPTextEncoder(nn.Module):
    """The text transformer and the pooling of its output."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.text_model = CLIPTextTransformer(config)

    def forward(self, ids: Tensor, check_cancelled: CancelCheck = never_cancelled) -> Tensor:
        """Encode padded token ids (B, T), int64, to pooled vectors (B, W) in the dtype of the weights.

        The end token has the largest id of the vocabulary, so `argmax` finds the first end token of each row.
        """
        hidden = self.text_model(ids, check_cancelled)
        return hidden[torch.arange(ids.shape[0], device=ids.device), ids.argmax(dim=-1)]
