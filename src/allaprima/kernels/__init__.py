"""The fast inner loops behind one seam: plain tensors in, plain tensors out."""

from allaprima.kernels.attention import attention, turn_heads
from allaprima.kernels.convolution import Affine, Convolution, group_affine, pointwise, prefers_channels_last
from allaprima.kernels.linear import PLAIN, Epilogue, Linear, beside
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
    "PLAIN",
    "Affine",
    "Convolution",
    "Epilogue",
    "Float8Linear",
    "Int4WeightLinear",
    "Int8Linear",
    "Int8WeightLinear",
    "Linear",
    "QuantizedLinear",
    "attention",
    "beside",
    "group_affine",
    "modulate",
    "pointwise",
    "prefers_channels_last",
    "rms_norm",
    "turn_heads",
]
