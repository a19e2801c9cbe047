"""The building blocks of FLUX's transformer: embedders, rotary positions, modulation, double and single blocks.

Attribute names are those of black-forest-labs/flux (`modules/layers.py`, `math.py`), so its checkpoints load without
a mapping. Positions and rotations are computed in float32 from float64 angles; everything else runs in the dtype of
the weights.

Dimension key: B batch, L image tokens, T text tokens, S = T + L, W hidden width, H heads, D = W / H.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from allaprima.kernels import attention


class Rotation(NamedTuple):
    """The cosines and sines of every token's rotary angles; each (B, 1, S, D/2), float32."""

    cos: Tensor
    sin: Tensor


class Modulated(NamedTuple):
    """Shift, scale and gate of one residual branch; each (B, 1, W)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def rotary(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Rotation:
    """Return the rotation of each token, its axes' angles side by side.

    ids: (B, S, A), float32, a position per axis. Angles: position / theta^(2k/d) for k < d/2 of each axis of width d.
    Source: Su et al. 2021 (2104.09864), eq. 15; black-forest-labs/flux `math.py`, `rope`.
    """
    angles = []
    for axis, width in enumerate(axes_dim):
        exponent = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angles.append(ids[..., axis, None].double() * theta**-exponent)
    angle = torch.cat(angles, dim=-1).unsqueeze(1)  # (B, 1, S, D/2)
    return Rotation(angle.cos().float(), angle.sin().float())


def rotate(x: Tensor, pe: Rotation) -> Tensor:
    """Turn each adjacent pair of values of x by its token's angle, in float32.

    x: (B, H, S, D). Returns the same shape and dtype.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # each (B, H, S, D/2)
    turned = torch.stack((even * pe.cos - odd * pe.sin, even * pe.sin + odd * pe.cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def timestep_embedding(t: Tensor, width: int, max_period: int = 10_000, time_factor: float = 1000.0) -> Tensor:
    """Return the sinusoidal embedding of times, cosines first.

    t: (B,), in [0, 1]; 1 is noise. Returns (B, width), float32.
    Source: black-forest-labs/flux `modules/layers.py`, `timestep_embedding`.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = (time_factor * t.float())[:, None] * torch.exp(-math.log(max_period) * steps / half)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class MLPEmbedder(nn.Module):
    """Two linears with a SiLU between them: times and pooled vectors to the width of the blocks."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_dim)
        self.out_layer = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, hidden_dim)."""
        return self.out_layer(nn.functional.silu(self.in_layer(x)))


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale. eps 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return nn.functional.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), eps=1e-6)


class QKNorm(nn.Module):
    """Normalise queries and keys, each with a learned scale over the head's width."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """q, k: (B, H, S, D), returned in the same shape."""
        return self.query_norm(q), self.key_norm(k)


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, S, 3 W), all of q, then k, then v -> three of (B, H, S, D)."""
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, S, D) -> (B, S, W)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """The projections and norms of one stream's attention; the attention itself joins both streams."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.norm = QKNorm(hidden_size // num_heads)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, W) -> normalised q, k and plain v, each (B, H, S, D)."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q, k = self.norm(q, k)
        return q, k, v


class Modulation(nn.Module):
    """A linear from the conditioning vector to shift, scale and gate, once or twice."""

    def __init__(self, hidden_size: int, branches: int) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden_size, 3 * branches * hidden_size)

    def forward(self, vec: Tensor) -> Tensor:
        """vec: (B, W). Returns (B, 3 * branches * W): shift, scale and gate of attention, then those of the MLP."""
        return self.lin(nn.functional.silu(vec))


def branches(modulation: Tensor, width: int) -> list[Modulated]:
    """Take a `Modulation`'s values apart: (B, 3 * branches * W) -> one `Modulated` per residual branch."""
    parts = modulation[:, None].split(width, dim=-1)
    return [Modulated(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


def modulate(x: Tensor, mod: Modulated) -> Tensor:
    """Layer-normalise x without affine (eps 1e-6), then scale and shift it. x: (B, S, W)."""
    normed = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(mod.shift, normed, 1 + mod.scale)


def mlp(hidden_size: int, mlp_hidden: int) -> nn.Sequential:
    """The feed-forward branch: linear, GELU (tanh form), linear."""
    return nn.Sequential(
        nn.Linear(hidden_size, mlp_hidden), nn.GELU(approximate="tanh"), nn.Linear(mlp_hidden, hidden_size)
    )


class DoubleStreamBlock(nn.Module):
    """Text and image each with their own weights, joined in one attention, text before image."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.img_mod = Modulation(hidden_size, branches=2)
        self.img_attn = SelfAttention(hidden_size, num_heads)
        self.img_mlp = mlp(hidden_size, mlp_hidden)
        self.txt_mod = Modulation(hidden_size, branches=2)
        self.txt_attn = SelfAttention(hidden_size, num_heads)
        self.txt_mlp = mlp(hidden_size, mlp_hidden)

    def forward(
        self, img: Tensor, txt: Tensor, img_mod: Tensor, txt_mod: Tensor, pe: Rotation
    ) -> tuple[Tensor, Tensor]:
        """img: (B, L, W); txt: (B, T, W); img_mod, txt_mod: (B, 6 W), what the block's modulations gave.

        Returns img and txt.
        """
        img_attn_mod, img_mlp_mod = branches(img_mod, img.shape[-1])
        txt_attn_mod, txt_mlp_mod = branches(txt_mod, txt.shape[-1])
        img_qkv = self.img_attn.project(modulate(img, img_attn_mod))
        txt_qkv = self.txt_attn.project(modulate(txt, txt_attn_mod))
        q, k, v = (torch.cat((t, i), dim=2) for t, i in zip(txt_qkv, img_qkv, strict=True))  # (B, H, S, D)
        joint = merge_heads(attention(rotate(q, pe), rotate(k, pe), v))  # (B, S, W)
        txt_out, img_out = joint[:, : txt.shape[1]], joint[:, txt.shape[1] :]
        img = img + img_attn_mod.gate * self.img_attn.proj(img_out)
        img = img + img_mlp_mod.gate * self.img_mlp(modulate(img, img_mlp_mod))
        txt = txt + txt_attn_mod.gate * self.txt_attn.proj(txt_out)
        txt = txt + txt_mlp_mod.gate * self.txt_mlp(modulate(txt, txt_mlp_mod))
        return img, txt


class SingleStreamBlock(nn.Module):
    """Text and image in one sequence; attention and MLP side by side, fused in two linears."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mlp_hidden = mlp_hidden
        self.linear1 = nn.Linear(hidden_size, 3 * hidden_size + mlp_hidden)
        self.linear2 = nn.Linear(hidden_size + mlp_hidden, hidden_size)
        self.norm = QKNorm(hidden_size // num_heads)
        self.modulation = Modulation(hidden_size, branches=1)

    def forward(self, x: Tensor, modulation: Tensor, pe: Rotation) -> Tensor:
        """x: (B, S, W), text before image; modulation: (B, 3 W), what the block's modulation gave. Returns x."""
        (mod,) = branches(modulation, x.shape[-1])
        qkv, hidden = self.linear1(modulate(x, mod)).split(
            (self.linear1.out_features - self.mlp_hidden, self.mlp_hidden), dim=-1
        )
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = self.norm(q, k)
        attn = merge_heads(attention(rotate(q, pe), rotate(k, pe), v))  # (B, S, W)
        out = self.linear2(torch.cat((attn, nn.functional.gelu(hidden, approximate="tanh")), dim=-1))
        return x + mod.gate * out


class LastLayer(nn.Module):
    """Modulated norm and the linear back to latent values."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: (B, L, W); modulation: (B, 2 W), what `adaLN_modulation` gave. Returns (B, L, out_channels)."""
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.linear(modulate(x, Modulated(shift, scale, scale)))
