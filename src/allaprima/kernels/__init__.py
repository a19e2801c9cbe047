"""The fast inner loops behind one seam: plain tensors in, plain tensors out."""

from allaprima.kernels.attention import attention

__all__ = ["attention"]
