"""The fast inner loops behind one seam: plain tensors in, plain tensors out."""

from allaprima.kernels.attention import attention
from allaprima.kernels.linear import (
    LAYOUT,
    Float8Linear,
    Int4WeightLinear,
    Int8Linear,
    Int8WeightLinear,
    QuantizedLinear,
)

__all__ = [
    "LAYOUT",
    "Float8Linear",
    "Int4WeightLinear",
    "Int8Linear",
    "Int8WeightLinear",
    "QuantizedLinear",
    "attention",
]
