"""The building blocks of FLUX's transformer: embedders, rotary positions, modulation, double and single blocks.

Attribute names are those of black-forest-labs/flux (`modules/layers.py`, `math.py`), so its checkpoints load without a
mapping. Rotary angles are computed in float64, and their cosines and sines are float32; everything else is computed in
the dtype of the weights.

Dimension key: B batch, L image tokens, T text tokens, S = T + L, W hidden width, H heads, D = W / H, A position axes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from allaprima.kernels import NO_EPILOGUE, Epilogue, Linear, Segment, attention, concat_into, modulate, qk_norm_rope


class Rotation(NamedTuple):
    """The cosines and sines of all tokens' rotary angles: (B, S, D/2) each, float32."""

    cos: Tensor
    sin: Tensor

    def select(self, tokens: slice) -> "Rotation":
        """Return the rotation of a slice of the tokens."""
        return Rotation(self.cos[:, tokens], self.sin[:, tokens])


class Modulated(NamedTuple):
    """Shift, scale and gate of one residual branch: (B, 1, W) each."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def rotary(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Rotation:
    """Return the rotary angles' cosines and sines of each token. The angles of its axes are concatenated.

    ids: (B, S, A), float32, the position on each axis. Angles of an axis of width d: position / theta^(2k/d) for
    0 <= k < d/2. Source: Su et al. 2021 (2104.09864), eq. 15; black-forest-labs/flux `math.py`, `rope`.
    """
    angles = []
    for axis, width in enumerate(axes_dim):
        exponent = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
        angles.append(ids[..., axis, None].double() * theta**-exponent)
    angle = torch.cat(angles, dim=-1)  # (B, S, D/2)
    return Rotation(angle.cos().float(), angle.sin().float())


def position_features(ids: Tensor, channels: int) -> Tensor:
    """Return sinusoidal features of each image token's absolute position: (B, L, channels), float32.

    ids: (B, L, 3), positions (index, row, column) of the whole token grid. channels: a multiple of 4; half for the row,
    half for the column. The first sinusoid of an axis has a wavelength of twice the grid's length and encodes the
    distance to the grid's edges. The frequencies of the others are evenly spaced below half a cycle per token, so that
    a linear layer can recover the row and the column. Rotary positions encode only distances between tokens, from which
    a small model learns absolute positions slowly. Source: Vaswani et al. 2017 (1706.03762), section 3.5, with other
    frequencies.
    """
    position = ids[..., 1:].float()
    first, last = position.amin(dim=1, keepdim=True), position.amax(dim=1, keepdim=True)
    from_centre = position - (first + last) / 2  # (B, L, 2)
    span = last - first + 1
    count = channels // 4 - 1
    frequencies = (torch.arange(count, device=ids.device) + 0.5) / (2 * max(1, count))
    turns = torch.cat(((from_centre / span / 2)[..., None], from_centre[..., None] * frequencies), dim=-1)
    angle = (2 * math.pi * turns).flatten(2)  # (B, L, channels / 2)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def latent_stats(img: Tensor) -> Tensor:
    """Return the mean of each latent channel over the image, normalised and squashed with tanh: (B, 1, C / 4), float32.

    img: (B, L, C), packed latents. For pure noise the values are tanh(n / 2) with n standard normal, for any number of
    tokens. They are a global summary of the noise for every token, so that the seed can determine the layout.
    """
    values = img.float().unflatten(-1, (-1, 4))  # (B, L, C / 4, 4): `latents.pack` keeps a channel's values adjacent
    return torch.tanh(values.mean(dim=(1, 3)) * img.shape[1] ** 0.5)[:, None]


def timestep_embedding(t: Tensor, width: int, max_period: int = 10_000, time_factor: float = 1000.0) -> Tensor:
    """Return the sinusoidal embedding of times: the cosines, then the sines.

    t: (B,), in [0, 1]; 1 is noise. Returns (B, width), float32.
    Source: black-forest-labs/flux `modules/layers.py`, `timestep_embedding`.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = (time_factor * t.float())[:, None] * torch.exp(-math.log(max_period) * steps / half)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class MLPEmbedder(nn.Module):
    """Linear, SiLU, linear: projects the time embedding or the pooled vector to the hidden width."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_layer = Linear(in_dim, hidden_dim)
        self.out_layer = Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, hidden_dim)."""
        return self.out_layer(nn.functional.silu(self.in_layer(x)))


class RMSNorm(nn.Module):
    """The learned scale, (D,), of an RMS norm over a head. `QKNorm` applies the norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))


class QKNorm(nn.Module):
    """RMS norms of queries and keys, with learned scales, followed by their rotary positions."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)

    def forward(self, qkv: Tensor, pe: Rotation, num_heads: int) -> Tensor:
        """Apply norms and rotary positions to q and k. qkv: (B, S, 3 W), may be overwritten. Returns the same shape."""
        return qk_norm_rope(qkv, self.query_norm.scale, self.key_norm.scale, pe.cos, pe.sin, num_heads)


def attend(qkv: Tensor, num_heads: int, out: Tensor | None = None) -> Tensor:
    """Attention of every token to every token: (B, S, 3 W) -> (B, S, W).

    out: (B, S, W), a buffer that the function may use for the result; callers must use the return value.
    """
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, S, D)
    heads_out = None if out is None else out.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return attention(q, k, v, out=heads_out).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """The attention projections and norms of one stream. `attend` computes the joint attention of both streams."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(hidden_size, 3 * hidden_size)
        self.norm = QKNorm(hidden_size // num_heads)
        self.proj = Linear(hidden_size, hidden_size)

    def project(self, x: Tensor, pe: Rotation, out: Tensor | None) -> Tensor:
        """(B, S, W) -> (B, S, 3 W): q and k after norm and rotary positions, then v. out: as in `attend`."""
        return self.norm(self.qkv(x, out=out), pe, self.num_heads)


class Modulation(nn.Module):
    """Computes shift, scale and gate from the conditioning vector, for one or two residual branches."""

    def __init__(self, hidden_size: int, branches: int) -> None:
        super().__init__()
        self.lin = Linear(hidden_size, 3 * branches * hidden_size)

    def forward(self, vec: Tensor) -> Tensor:
        """vec: (B, W). Returns (B, 3 * branches * W): shift, scale and gate of each branch, attention before MLP."""
        return self.lin(nn.functional.silu(vec))


def branches(modulation: Tensor, width: int) -> list[Modulated]:
    """Split the result of `Modulation`, (B, 3 * branches * W), into one `Modulated` per residual branch."""
    parts = modulation[:, None].split(width, dim=-1)
    return [Modulated(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


class MLP(nn.Sequential):
    """The feed-forward branch: linear, GELU (tanh form), linear."""

    def __init__(self, hidden_size: int, mlp_hidden: int) -> None:
        # Module 1 is the GELU in the checkpoint's numbering; here the first linear's epilogue computes it.
        super().__init__(Linear(hidden_size, mlp_hidden), nn.Identity(), Linear(mlp_hidden, hidden_size))

    def forward(self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE) -> Tensor:
        """(B, S, W) -> (B, S, W). epilogue: applied by the last linear."""
        return self[2](self[0](x, Epilogue(gelu=True)), epilogue)


class DoubleStreamBlock(nn.Module):
    """A block with separate weights for text and image tokens and a joint attention, text tokens first."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.img_mod = Modulation(hidden_size, branches=2)
        self.img_attn = SelfAttention(hidden_size, num_heads)
        self.img_mlp = MLP(hidden_size, mlp_hidden)
        self.txt_mod = Modulation(hidden_size, branches=2)
        self.txt_attn = SelfAttention(hidden_size, num_heads)
        self.txt_mlp = MLP(hidden_size, mlp_hidden)

    def forward(
        self, img: Tensor, txt: Tensor, img_mod: Tensor, txt_mod: Tensor, pe: Rotation
    ) -> tuple[Tensor, Tensor]:
        """img: (B, L, W); txt: (B, T, W); img_mod, txt_mod: (B, 6 W), results of the block's modulations.

        Returns the new img and txt.
        """
        img_attn_mod, img_mlp_mod = branches(img_mod, img.shape[-1])
        txt_attn_mod, txt_mlp_mod = branches(txt_mod, txt.shape[-1])
        length = txt.shape[1]
        img_normed = modulate(img, img_attn_mod.shift, img_attn_mod.scale)
        txt_normed = modulate(txt, txt_attn_mod.shift, txt_attn_mod.scale)
        image_pe, text_pe = pe.select(slice(length, None)), pe.select(slice(length))
        segments = (
            Segment(length, lambda out: self.txt_attn.project(txt_normed, text_pe, out)),
            Segment(img.shape[1], lambda out: self.img_attn.project(img_normed, image_pe, out)),
        )
        qkv = concat_into(segments, axis=1, shape=(*txt.shape[:2], 3 * txt.shape[2]), like=txt)  # (B, S, 3 W)
        joint = attend(qkv, self.img_attn.num_heads)  # (B, S, W)
        img = self._residuals(self.img_attn, self.img_mlp, img, joint[:, length:], img_attn_mod, img_mlp_mod)
        txt = self._residuals(self.txt_attn, self.txt_mlp, txt, joint[:, :length], txt_attn_mod, txt_mlp_mod)
        return img, txt

    @staticmethod
    def _residuals(
        attn: SelfAttention, mlp: MLP, x: Tensor, attended: Tensor, attn_mod: Modulated, mlp_mod: Modulated
    ) -> Tensor:
        """Return one stream after its two residual branches: the attention's projection, then the MLP."""
        x = attn.proj(attended, Epilogue(gate=attn_mod.gate, residual=x))
        return mlp(modulate(x, mlp_mod.shift, mlp_mod.scale), Epilogue(gate=mlp_mod.gate, residual=x))


class SingleStreamBlock(nn.Module):
    """A block over text and image tokens in one sequence. Attention and MLP run in parallel and share two linears."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mlp_hidden = mlp_hidden
        self.linear1 = Linear(hidden_size, 3 * hidden_size + mlp_hidden)
        self.linear2 = Linear(hidden_size + mlp_hidden, hidden_size)
        self.norm = QKNorm(hidden_size // num_heads)
        self.modulation = Modulation(hidden_size, branches=1)

    def forward(self, x: Tensor, modulation: Tensor, pe: Rotation) -> Tensor:
        """x: (B, S, W), text before image; modulation: (B, 3 W), result of `self.modulation`. Returns the new x."""
        (mod,) = branches(modulation, x.shape[-1])
        normed = modulate(x, mod.shift, mod.scale)
        width = x.shape[-1]
        to_qkv, to_mlp = slice(3 * width), slice(3 * width, None)
        qkv = self.norm(self.linear1(normed, rows=to_qkv), pe, self.num_heads)  # (B, S, 3 W)
        segments = (
            Segment(width, lambda out: attend(qkv, self.num_heads, out)),
            Segment(self.mlp_hidden, lambda out: self.linear1(normed, Epilogue(gelu=True), rows=to_mlp, out=out)),
        )
        hidden = concat_into(segments, axis=-1, shape=x.shape, like=x)  # (B, S, W + mlp_hidden)
        return self.linear2(hidden, Epilogue(gate=mod.gate, residual=x))


class LastLayer(nn.Module):
    """Modulated norm and linear: projects hidden states to latents."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear = Linear(hidden_size, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: (B, L, W); modulation: (B, 2 W), result of `adaLN_modulation`. Returns (B, L, out_channels)."""
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))
