"""Linears with 8-bit or 4-bit weights. Each class replaces an `nn.Linear` of the same sizes.

Weights have one scale per row, or per group of 64 values of a row in 4 bits. `Int8Linear` and `Float8Linear` also
quantize the activations, dynamically, with one scale per token. The two weight-only classes multiply in the dtype of
the activations. Sums are exact (int8) or float32, and a token's result does not depend on other tokens.

Source: Dettmers et al. 2022 (2208.07339), section 2.1 (row-wise and vector-wise scales); Nagel et al. 2021
(2106.08295), sections 2.2 and 2.3 (symmetric and asymmetric grids).

Dimension key: N rows out, K columns in, M tokens, G = K / 64 rounded up.
"""

import torch
from torch import Tensor, nn

from allaprima.kernels import library, workspace
from allaprima.kernels.linear import ALL_ROWS, NO_EPILOGUE, Epilogue, apply_epilogue, has_kernel, per_sample_calls

#: Version of the packed weights' layout. It changes with the layout, so that packed weights on disk are rebuilt.
LAYOUT = 2
#: Largest value of each format.
INT8_MAX, INT4_MAX, FLOAT8_MAX = 127, 15, 448.0
#: Number of values that share a scale in the 4-bit format.
GROUP = 64
#: Number of int8 products whose sum is exact in float32, which represents all integers up to 2**24.
EXACT_PRODUCTS = 2**24 // INT8_MAX**2
#: The kernels' step along K, in int8 values.
DEPTH_STEP = 64
#: Most values that are unpacked or scaled at a time: 16 MiB in float32.
CHUNK_VALUES = 2**22


class QuantizedLinear(nn.Module):
    """The base class: sizes, bias and packing of the weight."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dtype: torch.dtype) -> None:
        """dtype: the bias's dtype. All buffers are on the meta device until `load_state_dict` assigns tensors."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        for name, tensor in self.pack(torch.empty(out_features, in_features, device="meta")).items():
            self.register_buffer(name, tensor)
        self.register_buffer("bias", torch.empty(out_features, dtype=dtype, device="meta") if bias else None)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None

    @classmethod
    def like(cls, linear: nn.Linear, dtype: torch.dtype) -> "QuantizedLinear":
        """Return a linear with the sizes of `linear`, on the meta device. dtype: the bias's dtype."""
        return cls(linear.in_features, linear.out_features, bias=linear.bias is not None, dtype=dtype)

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Quantize a weight, (N, K), floating point. Returns the values of the class's buffers by name."""
        raise NotImplementedError

    def unpack(self, rows: slice) -> Tensor:
        """Return the dequantized rows of the weight: (number of rows, K), float32."""
        return self.weight[rows].float() * self.scale[rows, None]

    def forward(
        self,
        x: Tensor,
        epilogue: Epilogue = NO_EPILOGUE,
        *,
        rows: slice = ALL_ROWS,
        out: Tensor | None = None,  # noqa: ARG002 - an implementation may ignore `out`
    ) -> Tensor:
        """(..., K) -> (..., N), in the dtype of x. For the arguments see `kernels.Linear.forward`."""
        return apply_epilogue(self.product(x, rows), epilogue)

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return x times some rows of the weight, plus the bias: (..., K) -> (..., rows), in the dtype of x."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """A linear with int8 weights, one scale per row, and int8 activations, quantized dynamically per token."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Return `weight`, (N, K), int8, and `scale`, (N,), float32."""
        packed, scale = quantize_rows(weight)
        return {"weight": packed, "scale": scale}

    def forward(
        self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE, *, rows: slice = ALL_ROWS, out: Tensor | None = None
    ) -> Tensor:
        """(..., K) -> (..., N), as in the base class. The compiled kernel applies the epilogue to float32 sums."""
        count = len(range(*rows.indices(self.out_features)))
        if has_kernel(x, count, self.bias, epilogue, out) and self.weight.device.type == "cpu":
            return self._native(x, epilogue, rows, out)
        return apply_epilogue(self.product(x, rows), epilogue)

    def _native(self, x: Tensor, epilogue: Epilogue, rows: slice, out: Tensor | None) -> Tensor:
        weight, scale = self.weight[rows].contiguous(), self.scale[rows].contiguous()
        out = workspace.empty((*x.shape[:-1], weight.shape[0]), x) if out is None else out
        bias = None if self.bias is None else self.bias[rows]
        for tokens, native_epilogue, result in per_sample_calls(x, bias, epilogue, out):
            packed, token_scale, sums = _quantize_native(tokens)
            library.call(
                "linear_int8",
                packed,
                packed.shape[1],
                token_scale,
                sums,
                weight,
                scale,
                tokens.shape[0],
                *weight.shape,
                native_epilogue,
                result,
                result.stride(0),
            )
        return out

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return x times some rows of the weight, plus the bias: (..., K) -> (..., rows), in the dtype of x."""
        packed, token_scale = quantize_rows(x.reshape(-1, self.in_features))
        weight, scale = self.weight[rows], self.scale[rows]
        sums = _int8_product(packed, weight)  # (M, N), int32
        out = torch.empty(sums.shape, dtype=x.dtype, device=x.device)
        chunk = max(1, CHUNK_VALUES // weight.shape[0])
        for start in range(0, len(sums), chunk):
            tokens = slice(start, start + chunk)
            scaled = sums[tokens].float().mul_(token_scale[tokens, None]).mul_(scale)
            out[tokens] = scaled if self.bias is None else scaled.add_(self.bias[rows])
        return out.reshape(*x.shape[:-1], weight.shape[0])


class Int8WeightLinear(QuantizedLinear):
    """A linear with int8 weights, one scale per row. Activations are not quantized."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Return what `Int8Linear.pack` returns."""
        return Int8Linear.pack(weight)

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return x times some rows of the weight, plus the bias: (..., K) -> (..., rows), in the dtype of x."""
        return _by_chunks(self, x, rows)


class Int4WeightLinear(QuantizedLinear):
    """A linear with 4-bit weights, one scale and one minimum per group of 64 values. Activations are not quantized."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Return `weight`, (N, 32 G), uint8, two values per byte, the first in the low bits; `scale` and `low`, the
        groups' scales and minima, (N, G), bfloat16.
        """
        rows, columns = weight.shape
        groups = -(-columns // GROUP)
        if weight.is_meta:
            shapes = {"weight": (rows, groups * GROUP // 2), "scale": (rows, groups), "low": (rows, groups)}
            return {
                name: torch.empty(shape, dtype=torch.uint8 if name == "weight" else torch.bfloat16, device="meta")
                for name, shape in shapes.items()
            }
        chunks = [_pack_int4(chunk) for chunk in weight.split(max(1, CHUNK_VALUES // columns))]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.low: Tensor

    def unpack(self, rows: slice) -> Tensor:
        """Return the dequantized rows of the weight: (number of rows, K), float32."""
        packed = self.weight[rows]
        numbers = torch.stack((packed & INT4_MAX, packed >> 4), dim=-1).flatten(1).unflatten(1, (-1, GROUP))
        values = numbers.float() * self.scale[rows, :, None].float() + self.low[rows, :, None].float()
        return values.flatten(1)[:, : self.in_features]

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return x times some rows of the weight, plus the bias: (..., K) -> (..., rows), in the dtype of x."""
        return _by_chunks(self, x, rows)


class Float8Linear(QuantizedLinear):
    """A linear with float8_e4m3fn weights, one scale per row, and activations, one scale per token.

    It is for GPUs with float8 products. Other devices multiply the same quantized values in float32, for tests and
    comparisons only.
    """

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Return `weight`, (N, K), float8_e4m3fn, and `scale`, (N,), float32."""
        packed, scale = _quantize_float8(weight)
        return {"weight": packed, "scale": scale}

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return x times some rows of the weight, plus the bias: (..., K) -> (..., rows), in the dtype of x."""
        packed, token_scale = _quantize_float8(x.reshape(-1, self.in_features))
        weight, scale = self.weight[rows], self.scale[rows]
        bias = None if self.bias is None else self.bias[rows]
        if x.is_cuda:
            out = torch._scaled_mm(  # noqa: SLF001 - has no public name
                packed, weight.t(), scale_a=token_scale[:, None], scale_b=scale[None], out_dtype=torch.bfloat16
            )
            out = out if bias is None else out + bias
        else:
            exact = (packed.float() @ weight.float().t()) * token_scale[:, None] * scale
            out = exact if bias is None else exact + bias
        return out.to(x.dtype).reshape(*x.shape[:-1], weight.shape[0])


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row to int8, symmetrically, so that x is approximately packed * scale.

    x: (M, K), floating point. Returns packed, (M, K), int8 in [-127, 127], which is x * (1 / scale) rounded to nearest
    even; and scale, (M,), float32, which is max |x| / 127. The scale of a row with a value that is not finite is not
    finite either, so the error remains visible in the result.
    """
    packed = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    if x.is_meta:
        return packed, scale
    chunk = max(1, CHUNK_VALUES // x.shape[1])
    for start in range(0, x.shape[0], chunk):
        rows = slice(start, start + chunk)
        values = x[rows].float()
        scale[rows] = values.abs().amax(dim=1) / INT8_MAX
        packed[rows] = values.mul(_divisor(scale[rows])[:, None].reciprocal()).round_().clamp_(-INT8_MAX, INT8_MAX)
    return packed, scale


def _quantize_native(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize rows (M, K) with the compiled kernel, which gives the same values as `quantize_rows`.

    Returns packed, (M, K padded with zeros to a multiple of `DEPTH_STEP`), int8; scale, (M,), float32; and the sums of
    the packed rows, (M,), int32.
    """
    rows, columns = tokens.shape
    packed = workspace.empty((rows, -(-columns // DEPTH_STEP) * DEPTH_STEP), tokens, torch.int8)
    scale = torch.empty(rows, dtype=torch.float32)
    sums = torch.empty(rows, dtype=torch.int32)
    library.call("quantize", tokens, rows, columns, tokens.stride(0), packed, packed.shape[1], scale, sums)
    return packed, scale, sums


def _divisor(scale: Tensor) -> Tensor:
    """Return the scale with 1 in place of zero and subnormal values, whose inverse can be infinite."""
    return torch.where(scale >= torch.finfo(torch.float32).tiny, scale, 1.0)


def _quantize_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.is_meta:
        return x.to(torch.float8_e4m3fn), torch.empty(x.shape[0], dtype=torch.float32, device="meta")
    values = x.float()
    scale = values.abs().amax(dim=1) / FLOAT8_MAX
    return values.div(_divisor(scale)[:, None]).to(torch.float8_e4m3fn), scale


def _pack_int4(weight: Tensor) -> dict[str, Tensor]:
    spare = -weight.shape[1] % GROUP
    groups = nn.functional.pad(weight.float(), (0, spare)).unflatten(1, (-1, GROUP))  # (N, G, 64)
    # The scale and the minimum are rounded before the 4-bit values are computed, which then compensate the rounding.
    low = groups.amin(dim=-1).bfloat16()
    scale = ((groups.amax(dim=-1) - low.float()) / INT4_MAX).bfloat16()
    numbers = (groups - low[..., None].float()) / _divisor(scale.float())[..., None]
    even, odd = numbers.round().clamp(0, INT4_MAX).to(torch.uint8).flatten(1).unflatten(1, (-1, 2)).unbind(-1)
    return {"weight": even | odd << 4, "scale": scale, "low": low}


def _int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T exactly. x: (M, K), int8; weight: (N, K), int8. Returns (M, N), int32."""
    rows = x.shape[0]
    if library.level() == library.IsaLevel.AVX2 and x.device.type == "cpu":
        sums = torch.empty((rows, weight.shape[0]), dtype=torch.int32)
        library.call("product_int8_avx2", x, weight, rows, *weight.shape, sums)
        return sums
    if x.device.type == "cpu" and not torch.cpu._is_vnni_supported():  # noqa: SLF001 - has no public name
        return _int8_product_in_float32(x, weight)
    # cuBLAS requires more than 16 rows.
    padded = nn.functional.pad(x, (0, 0, 0, max(0, 17 - rows))) if x.is_cuda else x
    return torch._int_mm(padded, weight.t())[:rows]  # noqa: SLF001 - has no public name


def _int8_product_in_float32(x: Tensor, weight: Tensor) -> Tensor:
    """Compute `_int8_product` with exact float32 products, for CPUs where torch's int8 product is not vectorised."""
    sums = torch.zeros((x.shape[0], weight.shape[0]), dtype=torch.int32)
    for columns, numbers in zip(x.split(EXACT_PRODUCTS, dim=1), weight.split(EXACT_PRODUCTS, dim=1), strict=True):
        sums += (columns.float() @ numbers.float().t()).int()
    return sums


def _by_chunks(linear: QuantizedLinear, x: Tensor, rows: slice) -> Tensor:
    """Apply a weight-only linear. A chunk of the weight's rows is dequantized at a time, which bounds the memory."""
    first, end, _ = rows.indices(linear.out_features)
    chunk = max(1, CHUNK_VALUES // linear.in_features)
    outs = []
    for start in range(first, end, chunk):
        part = slice(start, min(start + chunk, end))
        bias = None if linear.bias is None else linear.bias[part].to(x.dtype)
        outs.append(nn.functional.linear(x, linear.unpack(part).to(x.dtype), bias))
    return torch.cat(outs, dim=-1) if len(outs) > 1 else outs[0]
