"""Linears with what follows them: GELU, a gate and a residual, in one pass over the sums where the kernels can.

Dimension key: B batch, M tokens, K columns in, N rows out.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allaprima.kernels import library, workspace

#: All rows of a weight.
ALL = slice(None)
#: Makes a tensor, in the place that it is offered or elsewhere.
Part = Callable[[Tensor | None], Tensor]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What happens to a linear's result, in this order."""

    #: The tanh form.
    gelu: bool = False
    #: Multiplied by: (B, 1, N).
    gate: Tensor | None = None
    #: Added: (B, M, N).
    residual: Tensor | None = None


PLAIN = Epilogue()


class Linear(nn.Linear):
    """`nn.Linear` with an epilogue, for a part of its rows if asked."""

    def forward(self, x: Tensor, then: Epilogue = PLAIN, *, rows: slice = ALL, out: Tensor | None = None) -> Tensor:
        """(..., K) -> (..., N), in the dtype of x; N rows of the weight.

        out: where the result may be put, rows of numbers side by side, and need not be.
        """
        return linear(x, self.weight[rows], None if self.bias is None else self.bias[rows], then, out)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: Epilogue = PLAIN, out: Tensor | None = None) -> Tensor:
    """(..., K), (N, K), (N,) -> (..., N): as `Linear` does."""
    if not (has_kernel(x, weight.shape[0], bias, then, out) and library.takes(weight)) or weight.shape[1] % 2:
        return finish(nn.functional.linear(x, weight, bias), then)
    weight = weight.contiguous()
    out = workspace.empty((*x.shape[:-1], weight.shape[0]), x) if out is None else out
    for tokens, epilogue, place in samples(x, bias, then, out):
        sizes = (tokens.shape[0], weight.shape[0], weight.shape[1])
        library.call("linear_bf16", tokens, tokens.stride(0), weight, *sizes, epilogue, place, place.stride(0))
    return out


def has_kernel(x: Tensor, rows: int, bias: Tensor | None, then: Epilogue, out: Tensor | None) -> bool:
    """Say whether the kernels can be given all but the weight, which has so many rows."""
    if not library.takes(x, bias, then.gate, then.residual, out) or x.dim() not in {2, 3} or not x.shape[-1]:
        return False
    shape = (*x.shape[:-1], rows)
    fits = all(tensor is None or tensor.shape == shape for tensor in (then.residual, out))
    batch = x.shape[0] if x.dim() == 3 else 1
    return fits and (then.gate is None or then.gate.shape in {(1, 1, rows), (batch, 1, rows)})


class NativeEpilogue(ctypes.Structure):
    """`Epilogue` of `native/kernels.h`."""

    _fields_ = (
        ("bias", ctypes.c_void_p),
        ("gate", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("residual_stride", ctypes.c_int64),
        ("gelu", ctypes.c_int64),
    )


def finish(result: Tensor, then: Epilogue) -> Tensor:
    """Do what an epilogue says with torch's operations."""
    if then.gelu:
        result = nn.functional.gelu(result, approximate="tanh")
    if then.gate is not None:
        result = then.gate * result
    return result if then.residual is None else then.residual + result


def samples(
    x: Tensor, bias: Tensor | None, then: Epilogue, out: Tensor
) -> Iterator[tuple[Tensor, NativeEpilogue, Tensor]]:
    """Yield what the kernels do in one call each: tokens (M, K), what follows, and the place of the result (M, N)."""
    tokens, places, beside = _matrices(x), _matrices(out), None if then.residual is None else _matrices(then.residual)
    for index, place in enumerate(places):
        gate = None if then.gate is None else then.gate[index if then.gate.shape[0] > 1 else 0]
        residual = None if beside is None else beside[index]
        pointers = (None if tensor is None else tensor.data_ptr() for tensor in (bias, gate, residual))
        stride = 0 if residual is None else residual.stride(0)
        yield tokens[index], NativeEpilogue(*pointers, stride, then.gelu), place


def _matrices(x: Tensor) -> Tensor:
    """(M, N) or (B, M, N) -> (B, M, N), of the same memory."""
    return x if x.dim() == 3 else x[None]


def beside(axis: int, shape: Sequence[int], like: Tensor, *parts: tuple[int, Part]) -> Tensor:
    """Return parts beside each other along an axis, without a copy where they can be put into their place.

    parts: sizes along the axis, and what makes each, which is offered its place and may ignore it.
    shape: the other axes' sizes; like: has the dtype and device. With gradients the parts are made apart.
    """
    if torch.is_grad_enabled():
        return torch.cat([make(None) for _, make in parts], dim=axis)
    sizes = list(shape)
    sizes[axis] = sum(size for size, _ in parts)
    whole = workspace.empty(sizes, like)
    for place, (_, make) in zip(whole.split([size for size, _ in parts], dim=axis), parts, strict=True):
        made = make(place)
        if made.data_ptr() != place.data_ptr():
            place.copy_(made)
    return whole
