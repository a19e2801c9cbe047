"""Linears with an epilogue (GELU, gate, residual), which the kernels apply to the float32 sums before rounding.

Dimension key: B batch, M tokens, K columns in, N rows out.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allaprima.kernels import library, workspace

#: All rows of a weight.
ALL_ROWS = slice(None)


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Operations on a linear's result, applied in the order of the fields."""

    #: Whether to apply GELU (tanh form).
    gelu: bool = False
    #: Multiplied with the result: (B, 1, N).
    gate: Tensor | None = None
    #: Added to the result: (B, M, N).
    residual: Tensor | None = None


NO_EPILOGUE = Epilogue()


@dataclass(frozen=True, slots=True)
class Segment:
    """One of the tensors that `concat_into` concatenates."""

    #: The segment's size along the axis.
    size: int
    #: Computes the segment. Its argument is the segment's slice of the result, or None: `compute` may write into the
    #: slice and return it, or return another tensor of the same shape.
    compute: Callable[[Tensor | None], Tensor]


class Linear(nn.Linear):
    """`nn.Linear` with an epilogue, which can also compute a slice of its output features."""

    def forward(
        self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE, *, rows: slice = ALL_ROWS, out: Tensor | None = None
    ) -> Tensor:
        """(..., K) -> (..., N), in the dtype of x.

        epilogue: applied to the result. rows: the rows of the weight to use; N is their number. out: (..., N),
        contiguous along N, a buffer that the function may use for the result; callers must use the return value.
        """
        return linear(x, self.weight[rows], None if self.bias is None else self.bias[rows], epilogue, out)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, epilogue: Epilogue = NO_EPILOGUE, out: Tensor | None = None
) -> Tensor:
    """Return x weight^T + bias with the epilogue applied. See `Linear.forward`.

    x: (..., K); weight: (N, K); bias: (N,). Returns (..., N).
    """
    is_supported = has_kernel(x, weight.shape[0], bias, epilogue, out) and library.supports_rows(weight)
    if not is_supported or weight.shape[1] % 2:
        return apply_epilogue(nn.functional.linear(x, weight, bias), epilogue)
    weight = weight.contiguous()
    out = workspace.empty((*x.shape[:-1], weight.shape[0]), x) if out is None else out
    for tokens, native_epilogue, result in per_sample_calls(x, bias, epilogue, out):
        sizes = (tokens.shape[0], weight.shape[0], weight.shape[1])
        library.call("linear_bf16", tokens, tokens.stride(0), weight, *sizes, native_epilogue, result, result.stride(0))
    return out


def has_kernel(x: Tensor, rows: int, bias: Tensor | None, epilogue: Epilogue, out: Tensor | None) -> bool:
    """Return whether the kernels support a linear with these arguments. rows: number of rows of its weight."""
    if not library.supports_rows(x, bias, epilogue.gate, epilogue.residual, out):
        return False
    if x.dim() not in {2, 3} or not x.shape[-1]:
        return False
    shape = (*x.shape[:-1], rows)
    fits = all(tensor is None or tensor.shape == shape for tensor in (epilogue.residual, out))
    batch = x.shape[0] if x.dim() == 3 else 1
    return fits and (epilogue.gate is None or epilogue.gate.shape in {(1, 1, rows), (batch, 1, rows)})


class NativeEpilogue(ctypes.Structure):
    """`Epilogue` of `native/kernels.h`."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("gate", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("residual_stride", ctypes.c_int64),
        ("gelu", ctypes.c_int64),
    )


def apply_epilogue(result: Tensor, epilogue: Epilogue) -> Tensor:
    """Apply an epilogue to a linear's result (..., N) with torch's operations."""
    if epilogue.gelu:
        result = nn.functional.gelu(result, approximate="tanh")
    if epilogue.gate is not None:
        result = epilogue.gate * result
    return result if epilogue.residual is None else epilogue.residual + result


def per_sample_calls(
    x: Tensor, bias: Tensor | None, epilogue: Epilogue, out: Tensor
) -> Iterator[tuple[Tensor, NativeEpilogue, Tensor]]:
    """Yield the arguments of one kernel call per sample: tokens (M, K), epilogue, and slice of `out` (M, N)."""
    tokens, outs = _batched(x), _batched(out)
    residuals = None if epilogue.residual is None else _batched(epilogue.residual)
    for index, result in enumerate(outs):
        gate = None if epilogue.gate is None else epilogue.gate[index if epilogue.gate.shape[0] > 1 else 0]
        residual = None if residuals is None else residuals[index]
        pointers = (None if tensor is None else tensor.data_ptr() for tensor in (bias, gate, residual))
        stride = 0 if residual is None else residual.stride(0)
        yield tokens[index], NativeEpilogue(*pointers, stride, epilogue.gelu), result


def _batched(x: Tensor) -> Tensor:
    """Return a view (B, M, N) of a tensor (M, N) or (B, M, N)."""
    return x if x.dim() == 3 else x[None]


def concat_into(segments: Sequence[Segment], *, axis: int, shape: Sequence[int], like: Tensor) -> Tensor:
    """Concatenate segments along `axis`. Each segment can write directly into its slice of the result.

    A segment that returns another tensor is copied into its slice. shape: the result's shape; the size along `axis` is
    ignored and computed from the segments. like: a tensor with the result's dtype and device. When gradients are
    recorded, `Segment.compute` receives None and `torch.cat` concatenates.
    """
    if torch.is_grad_enabled():
        return torch.cat([segment.compute(None) for segment in segments], dim=axis)
    sizes = list(shape)
    sizes[axis] = sum(segment.size for segment in segments)
    result = workspace.empty(sizes, like)
    for part, segment in zip(result.split([segment.size for segment in segments], dim=axis), segments, strict=True):
        computed = segment.compute(part)
        if computed.data_ptr() != part.data_ptr():
            part.copy_(computed)
    return result
