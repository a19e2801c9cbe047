"""The performance-critical operations on tensors. Each has a compiled version for some CPUs and a version in torch."""

from allaprima.kernels.attention import attention, qk_norm_rope
from allaprima.kernels.convolution import Affine, Convolution, group_affine, pointwise, prefers_channels_last
from allaprima.kernels.linear import NO_EPILOGUE, Epilogue, Linear, Segment, concat_into
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
    "NO_EPILOGUE",
    "Affine",
    "Convolution",
    "Epilogue",
    "Float8Linear",
    "Int4WeightLinear",
    "Int8Linear",
    "Int8WeightLinear",
    "Linear",
    "QuantizedLinear",
    "Segment",
    "attention",
    "concat_into",
    "group_affine",
    "modulate",
    "pointwise",
    "prefers_channels_last",
    "qk_norm_rope",
    "rms_norm",
]
