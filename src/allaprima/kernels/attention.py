"""Scaled dot-product attention without a mask, the only kind that FLUX's transformer needs.

On a CPU the stock fused attention is slow in bfloat16 and allocates nothing less than a plain product would, so the
plain product is used: for short sequences all heads at once, for long ones a head and a band of queries at a time,
which bounds the logits to `BAND_LOGITS` values. On other devices the framework's fused attention is used.

Dimension key: B batch, H heads, L tokens, D head width.
"""

import torch
from torch import Tensor

#: The most logits held at a time on a CPU; 2**24 values are 64 MiB in float32.
BAND_LOGITS = 2**24


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, one value per query.

    q, k, v: (B, H, L, D), floating point, one dtype and device. Returns (B, H, L, D) of the same dtype.
    Source: Vaswani et al. 2017 (1706.03762), eq. 1.
    """
    if q.device.type != "cpu":
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)
    batch, heads, length, width = q.shape
    scale = width**-0.5
    if batch * heads * length * k.shape[2] <= BAND_LOGITS:
        return torch.softmax((q * scale) @ k.transpose(-2, -1), dim=-1) @ v  # (B, H, L, D)
    out = torch.empty_like(q)
    band = max(1, BAND_LOGITS // k.shape[2])
    for b in range(batch):
        for h in range(heads):
            keys = k[b, h].t()  # (D, L)
            for start in range(0, length, band):
                rows = slice(start, start + band)
                out[b, h, rows] = torch.softmax((q[b, h, rows] * scale) @ keys, dim=-1) @ v[b, h]
    return out
