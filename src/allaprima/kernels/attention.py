"""Scaled dot-product attention, with a bias on the logits where T5 has one, and what precedes it in FLUX's blocks.

On a CPU the stock fused attention is slow in bfloat16 and allocates nothing less than a plain product would. So the
compiled kernel is used, or where there is none the plain product: for short sequences all heads at once, for long ones
a head and a band of queries at a time, which bounds the logits to `BAND_LOGITS` values. On other devices it is the
framework's fused attention.

Dimension key: B batch, H heads, L queries, S keys, D head width.
"""

import torch
from torch import Tensor

from allaprima.kernels import library, workspace

#: The most logits held at a time on a CPU; 2**24 values are 64 MiB in float32.
BAND_LOGITS = 2**24


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return softmax(scale q k^T + bias) v, one value per query.

    q: (B, H, L, D); k, v: (B, H, S, D); floating point, one dtype and device. bias: (1, H, L, S) of any
    dtype, or none.
    scale: 1 / sqrt(D) unless told. out: where the result may be put, (B, H, L, D), and need not be.
    Returns (B, H, L, D) of the same dtype. Source: Vaswani et al. 2017 (1706.03762), eq. 1.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(q, k, v, out) and (bias is None or (library.is_plain(bias) and bias.shape == _logits_shape(q, k))):
        return _native(q, k, v, bias, scale, out)
    if q.device.type != "cpu":
        mask = None if bias is None else bias.to(q.dtype)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    batch, heads, length, _ = q.shape
    if batch * heads * length * k.shape[2] <= BAND_LOGITS:
        return _softmax((q * scale) @ k.transpose(-2, -1), bias) @ v  # (B, H, L, D)
    result = torch.empty_like(q)
    band = max(1, BAND_LOGITS // k.shape[2])
    for b in range(batch):
        for h in range(heads):
            keys = k[b, h].t()  # (D, S)
            for start in range(0, length, band):
                rows = slice(start, start + band)
                beside = None if bias is None else bias[0, h, rows]
                result[b, h, rows] = _softmax((q[b, h, rows] * scale) @ keys, beside) @ v[b, h]
    return result


def _softmax(logits: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return torch.softmax(logits, dim=-1)
    return torch.softmax(logits + bias, dim=-1, dtype=torch.float32).to(logits.dtype)


def _logits_shape(q: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    return 1, q.shape[1], q.shape[2], k.shape[2]


def _has_kernel(*tensors: Tensor | None) -> bool:
    """Say whether heads lie side by side in rows of memory, as the kernel wants them."""
    return library.takes(*tensors) and all(
        tensor.shape[-1] % 2 == 0 and (tensor.shape[1] == 1 or tensor.stride(1) == tensor.shape[-1])
        for tensor in tensors
        if tensor is not None
    )


def _native(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, out: Tensor | None) -> Tensor:
    batch, heads, length, width = q.shape
    if out is None:
        out = workspace.empty((batch, length, heads, width), q).transpose(1, 2)
    bias = None if bias is None else bias.float().contiguous()
    for b in range(batch):
        rows = [part for x in (q, k, v) for part in (x[b], x.stride(2))]
        sizes = (heads, length, k.shape[2], width)
        library.call("attention", *rows, bias, float(scale), *sizes, out[b], out.stride(2))
    return out


def turn_heads(
    qkv: Tensor, query_scale: Tensor, key_scale: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float = 1e-6
) -> Tensor:
    """Divide the queries and keys of every head by their root mean square, scale them, and turn each adjacent pair of
    their values by its token's angle. What it returns may lie in the memory of qkv.

    qkv: (B, L, 3 H D), queries, keys and values; query_scale, key_scale: (D,); cos, sin: (B, L, D / 2), float32.
    Returns the same shape and dtype. Source: Su et al. 2021 (2104.09864), eq. 15; Zhang and Sennrich 2019 (1910.07467).
    """
    if library.takes(qkv, query_scale, key_scale) and library.is_plain(cos, sin):
        width = query_scale.shape[0]
        for b in range(qkv.shape[0]):
            for part, scale in zip(qkv[b].split(heads * width, dim=-1), (query_scale, key_scale), strict=False):
                sizes = (part.shape[0], heads, width, part.stride(0))
                library.call("rotate", part, *sizes, scale, float(eps), cos[b].contiguous(), sin[b].contiguous())
        return qkv
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # each (B, L, H, D)
    turned = [
        _turn(torch.nn.functional.rms_norm(x, scale.shape, scale.to(x.dtype), eps), cos, sin)
        for x, scale in ((q, query_scale), (k, key_scale))
    ]
    return torch.stack((*turned, v), dim=-3).flatten(-3)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, L, H, D) -> the same shape and dtype, turned in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # each (B, L, H, D/2)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
