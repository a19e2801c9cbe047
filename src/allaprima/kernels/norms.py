"""Norms over the last axis, with the scale and shift that follow them.

Dimension key: B batch, L tokens, W width.
"""

import torch
from torch import Tensor

from allaprima.kernels import library, workspace


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Return layer_norm(x) * (1 + scale) + shift, the adaLN modulation. The layer norm has no learned parameters.

    x: (B, L, W); shift, scale: (B, 1, W). Returns (B, L, W). Source: Ba et al. 2016 (1607.06450), eq. 4; Peebles and
    Xie 2022 (2212.09748), section 3.2.
    """
    if library.supports_rows(x, shift, scale) and shift.shape == scale.shape == (x.shape[0], 1, x.shape[2]):
        out = workspace.empty(x.shape, x)
        for b in range(x.shape[0]):
            sizes = (x.shape[1], x.shape[2], x.stride(1))
            library.call("modulate", x[b], *sizes, shift[b], scale[b], float(eps), out[b])
        return out
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * scale, with the mean over the last axis.

    x: (..., W); scale: (W,). Returns the same shape. Source: Zhang and Sennrich 2019 (1910.07467), eq. 4.
    """
    if library.supports_rows(x, scale) and x.is_contiguous():
        out = torch.empty_like(x)
        width = x.shape[-1]
        library.call("rms_norm", x, x.numel() // width, width, width, scale, float(eps), out)
        return out
    return torch.nn.functional.rms_norm(x, scale.shape, scale, eps)
