"""Scaled dot-product attention, optionally with a bias on the logits (T5), and FLUX's norm and rotary positions.

On a CPU the compiled kernel computes attention. Without the kernel, matrix products compute it: all heads at once for
short sequences, and one head and one chunk of queries at a time for long ones, which limits the logits to
`CHUNK_LOGITS` values. torch's fused attention is used on other devices only: on a CPU it is slow in bfloat16 and saves
no memory.

Dimension key: B batch, H heads, L queries, S keys, D head width.
"""

import torch
from torch import Tensor

from allaprima.kernels import library, workspace

#: Most logits in memory at a time without the kernel; 2**24 values are 64 MiB in float32.
CHUNK_LOGITS = 2**24


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return softmax(scale q k^T + bias) v.

    q: (B, H, L, D); k, v: (B, H, S, D); of one floating-point dtype and one device. bias: (1, H, L, S), any dtype.
    scale: 1 / sqrt(D) by default. out: (B, H, L, D), a buffer that the function may use for the result; callers must
    use the return value. Returns (B, H, L, D) in the dtype of q. Source: Vaswani et al. 2017 (1706.03762), eq. 1.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if _has_kernel(q, k, v, out) and _is_supported_bias(bias, q, k):
        return _native(q, k, v, bias, scale, out)
    if q.device.type != "cpu":
        mask = None if bias is None else bias.to(q.dtype)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    batch, heads, length, _ = q.shape
    if batch * heads * length * k.shape[2] <= CHUNK_LOGITS:
        return _softmax((q * scale) @ k.transpose(-2, -1), bias) @ v  # (B, H, L, D)
    return _by_chunks(q, k, v, bias, scale)


def _by_chunks(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    batch, heads, length, _ = q.shape
    result = torch.empty_like(q)
    chunk = max(1, CHUNK_LOGITS // k.shape[2])
    for b in range(batch):
        for h in range(heads):
            keys = k[b, h].t()  # (D, S)
            for start in range(0, length, chunk):
                rows = slice(start, start + chunk)
                chunk_bias = None if bias is None else bias[0, h, rows]
                result[b, h, rows] = _softmax((q[b, h, rows] * scale) @ keys, chunk_bias) @ v[b, h]
    return result


def _softmax(logits: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return torch.softmax(logits, dim=-1)
    return torch.softmax(logits + bias, dim=-1, dtype=torch.float32).to(logits.dtype)


def _is_supported_bias(bias: Tensor | None, q: Tensor, k: Tensor) -> bool:
    return bias is None or (library.is_cpu_inference(bias) and bias.shape == (1, *q.shape[1:3], k.shape[2]))


def _has_kernel(*tensors: Tensor | None) -> bool:
    """Return whether the kernel supports these tensors (B, H, L, D): all heads of a token must be contiguous."""
    return library.supports_rows(*tensors) and all(
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
        matrices = [argument for x in (q, k, v) for argument in (x[b], x.stride(2))]
        sizes = (heads, length, k.shape[2], width)
        library.call("attention", *matrices, bias, float(scale), *sizes, out[b], out.stride(2))
    return out


def qk_norm_rope(
    qkv: Tensor, query_scale: Tensor, key_scale: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float = 1e-6
) -> Tensor:
    """Apply an RMS norm and rotary positions (RoPE) to the queries and keys of every head. Values do not change.

    Rotary positions rotate each adjacent pair of a head's values by an angle that depends on the token. The function
    may overwrite qkv with the result. qkv: (B, L, 3 H D), queries, keys and values; query_scale, key_scale: (D,); cos,
    sin: (B, L, D / 2), float32. Returns the same shape and dtype. Source: Su et al. 2021 (2104.09864), eq. 15; Zhang
    and Sennrich 2019 (1910.07467).
    """
    if library.supports_rows(qkv, query_scale, key_scale) and library.is_cpu_inference(cos, sin):
        width = query_scale.shape[0]
        for b in range(qkv.shape[0]):
            queries, keys, _ = qkv[b].split(heads * width, dim=-1)
            for rows, scale in ((queries, query_scale), (keys, key_scale)):
                sizes = (rows.shape[0], heads, width, rows.stride(0))
                angles = (cos[b].contiguous(), sin[b].contiguous())
                library.call("qk_norm_rope", rows, *sizes, scale, float(eps), *angles)
        return qkv
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # each (B, L, H, D)
    q, k = (
        _rope(torch.nn.functional.rms_norm(x, scale.shape, scale.to(x.dtype), eps), cos, sin)
        for x, scale in ((q, query_scale), (k, key_scale))
    )
    return torch.stack((q, k, v), dim=-3).flatten(-3)


def _rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of x, (B, L, H, D), in float32. Returns the same shape and dtype."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # each (B, L, H, D/2)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).to(x.dtype)
