"""The fast inner loops behind one seam: plain tensors in, plain tensors out."""

from allaprima.kernels.attention import attention, turn_heads
from allaprima.kernels.linear import Epilogue, Linear, beside
from allaprima.kernels.norms import modulate, rms_norm
from allaprima.kernels.quantized import (
    LAYOUT,
    Float8Linear,
    Int4WeightLinear,
    Int8Linear,
    Int8WeightLinear,
    QuantizedLinear,
)

__all__ = [
    "LAYOUT",
    "Epilogue",
    "Float8Linear",
    "Int4WeightLinear",
    "Int8Linear",
    "Int8WeightLinear",
    "Linear",
    "QuantizedLinear",
    "attention",
    "beside",
    "modulate",
    "rms_norm",
    "turn_heads",
]
