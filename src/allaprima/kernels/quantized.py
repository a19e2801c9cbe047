"""Linears whose weights take one byte a number, or half of one. Each replaces an `nn.Linear` of the same sizes.

A row of a weight has a scale of its own (the four-bit kind: every 64 numbers of a row), so that its largest number is
the largest that the form can hold. `Int8Linear` and `Float8Linear` bring the activations into their form too, a token
at a time, as they come; the two others multiply in the activations' own dtype. Sums are exact (int8) or float32, and a
token's result depends on no other token.

Source: Dettmers et al. 2022 (2208.07339), section 2.1 (row-wise and vector-wise scales); Nagel et al. 2021
(2106.08295), sections 2.2 and 2.3 (symmetric and asymmetric grids).

Dimension key: N rows out, K columns in, M tokens, G = K / 64 rounded up.
"""

import torch
from torch import Tensor, nn

from allaprima.kernels import library, workspace
from allaprima.kernels.linear import ALL, PLAIN, Epilogue, finish, has_kernel, samples

#: How numbers are packed, and lie in memory; a form that is kept on the disk is made anew when this rises.
LAYOUT = 2
#: Largest number of each form.
INT8_MAX, INT4_MAX, FLOAT8_MAX = 127, 15, 448.0
#: Numbers that share a scale in the four-bit form.
GROUP = 64
#: So many products of int8 add up exactly in float32, whose integers end at 2**24.
EXACT = 2**24 // INT8_MAX**2
#: Numbers that the kernels multiply at once.
STEP = 64
#: Most numbers that are unpacked, or scaled, at a time: 16 MiB in float32.
BAND = 2**22


class QuantizedLinear(nn.Module):
    """What the kinds share: the sizes, the bias, and how a weight is packed."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dtype: torch.dtype) -> None:
        """dtype: the bias', and of what the linear gives."""
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
        """Return an empty linear of the same sizes, on the meta device."""
        return cls(linear.in_features, linear.out_features, bias=linear.bias is not None, dtype=dtype)

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """Return a weight's packed form by the names of its buffers. weight: (N, K), floating point."""
        raise NotImplementedError

    def unpack(self, rows: slice) -> Tensor:
        """Return rows of the weight as the linear uses them: (rows, K), float32."""
        return self.weight[rows].float() * self.scale[rows, None]

    def forward(
        self,
        x: Tensor,
        then: Epilogue = PLAIN,
        *,
        rows: slice = ALL,
        out: Tensor | None = None,  # noqa: ARG002 - a place that is offered need not be taken
    ) -> Tensor:
        """Do as `kernels.Linear` does: (..., K) -> (..., N), in the dtype of x; N rows of the weight."""
        return finish(self.product(x, rows), then)

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return the linear's plain result, of some rows of the weight."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """int8 weights, a scale a row; int8 activations, a scale a token, found as they come."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """`weight`: (N, K), int8; `scale`: (N,), float32."""
        packed, scale = quantize_rows(weight)
        return {"weight": packed, "scale": scale}

    def forward(self, x: Tensor, then: Epilogue = PLAIN, *, rows: slice = ALL, out: Tensor | None = None) -> Tensor:
        """As its base's; the epilogue works on float32."""
        count = len(range(*rows.indices(self.out_features)))
        if has_kernel(x, count, self.bias, then, out) and self.weight.device.type == "cpu":
            return self._native(x, then, rows, out)
        return finish(self.product(x, rows), then)

    def _native(self, x: Tensor, then: Epilogue, rows: slice, out: Tensor | None) -> Tensor:
        weight, scale = self.weight[rows].contiguous(), self.scale[rows].contiguous()
        out = workspace.empty((*x.shape[:-1], weight.shape[0]), x) if out is None else out
        bias = None if self.bias is None else self.bias[rows]
        for tokens, epilogue, place in samples(x, bias, then, out):
            packed, token_scale, sums = _quantize_native(tokens)
            library.call(
                "linear_int8",
                *(packed, packed.shape[1], token_scale, sums, weight, scale),
                *(tokens.shape[0], *weight.shape, epilogue, place, place.stride(0)),
            )
        return out

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return the linear's plain result, of some rows of the weight."""
        packed, token_scale = quantize_rows(x.reshape(-1, self.in_features))
        weight, scale = self.weight[rows], self.scale[rows]
        sums = _int8_product(packed, weight)  # (M, N), int32
        out = torch.empty(sums.shape, dtype=x.dtype, device=x.device)
        band = max(1, BAND // weight.shape[0])
        for start in range(0, len(sums), band):
            tokens = slice(start, start + band)
            scaled = sums[tokens].float().mul_(token_scale[tokens, None]).mul_(scale)
            out[tokens] = scaled if self.bias is None else scaled.add_(self.bias[rows])
        return out.reshape(*x.shape[:-1], weight.shape[0])


class Int8WeightLinear(QuantizedLinear):
    """int8 weights, a scale a row; activations as they are."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """As `Int8Linear`."""
        return Int8Linear.pack(weight)

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return the linear's plain result, of some rows of the weight."""
        return _by_bands(self, x, rows)


class Int4WeightLinear(QuantizedLinear):
    """Four-bit weights, a scale and a lowest value every 64 of a row; activations as they are."""

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """`weight`: (N, 32 G), uint8, two numbers a byte, the earlier one low; `scale`, `low`: (N, G), bfloat16."""
        rows, columns = weight.shape
        groups = -(-columns // GROUP)
        if weight.is_meta:
            shapes = {"weight": (rows, groups * GROUP // 2), "scale": (rows, groups), "low": (rows, groups)}
            return {
                name: torch.empty(shape, dtype=torch.uint8 if name == "weight" else torch.bfloat16, device="meta")
                for name, shape in shapes.items()
            }
        parts = [_pack_int4(part) for part in weight.split(max(1, BAND // columns))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.low: Tensor

    def unpack(self, rows: slice) -> Tensor:
        """Return rows of the weight as the linear uses them: (rows, K), float32."""
        packed = self.weight[rows]
        numbers = torch.stack((packed & INT4_MAX, packed >> 4), dim=-1).flatten(1).unflatten(1, (-1, GROUP))
        values = numbers.float() * self.scale[rows, :, None].float() + self.low[rows, :, None].float()
        return values.flatten(1)[:, : self.in_features]

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return the linear's plain result, of some rows of the weight."""
        return _by_bands(self, x, rows)


class Float8Linear(QuantizedLinear):
    """float8_e4m3fn weights, a scale a row, and activations, a scale a token: the form of GPUs that multiply it.

    On any other device the same numbers are multiplied in float32, which is for tests and tables.
    """

    @staticmethod
    def pack(weight: Tensor) -> dict[str, Tensor]:
        """`weight`: (N, K), float8_e4m3fn; `scale`: (N,), float32."""
        packed, scale = _quantize_float8(weight)
        return {"weight": packed, "scale": scale}

    def product(self, x: Tensor, rows: slice) -> Tensor:
        """Return the linear's plain result, of some rows of the weight."""
        packed, token_scale = _quantize_float8(x.reshape(-1, self.in_features))
        weight, scale = self.weight[rows], self.scale[rows]
        bias = None if self.bias is None else self.bias[rows]
        if x.is_cuda:
            out = torch._scaled_mm(  # noqa: SLF001 - torch has no public name for it
                packed, weight.t(), scale_a=token_scale[:, None], scale_b=scale[None], out_dtype=torch.bfloat16
            )
            out = out if bias is None else out + bias
        else:
            exact = (packed.float() @ weight.float().t()) * token_scale[:, None] * scale
            out = exact if bias is None else exact + bias
        return out.to(x.dtype).reshape(*x.shape[:-1], weight.shape[0])


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row as int8 and its scale, of which the row is about the product.

    x: (M, K), floating point. Returns (M, K), int8, from -127 to 127: the row times the inverse of its scale, rounded
    to the nearest; and (M,), float32. A row with a value that is not finite gets such a scale, and so can't pass for a
    sound one.
    """
    packed = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    if x.is_meta:
        return packed, scale
    band = max(1, BAND // x.shape[1])
    for start in range(0, x.shape[0], band):
        rows = slice(start, start + band)
        values = x[rows].float()
        scale[rows] = values.abs().amax(dim=1) / INT8_MAX
        packed[rows] = values.mul(_divisor(scale[rows])[:, None].reciprocal()).round_().clamp_(-INT8_MAX, INT8_MAX)
    return packed, scale


def _quantize_native(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `quantize_rows` does, with zeros up to whole steps of the kernel, and the sum of each row."""
    rows, columns = tokens.shape
    packed = workspace.empty((rows, -(-columns // STEP) * STEP), tokens, torch.int8)
    scale = torch.empty(rows, dtype=torch.float32)
    sums = torch.empty(rows, dtype=torch.int32)
    library.call("quantize", tokens, rows, columns, tokens.stride(0), packed, packed.shape[1], scale, sums)
    return packed, scale, sums


def _divisor(scale: Tensor) -> Tensor:
    """Return what to divide by: 1 for a row of zeros, or one whose scale is below the normal numbers."""
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
    # Rounded before the numbers are, which then make up for it.
    low = groups.amin(dim=-1).bfloat16()
    scale = ((groups.amax(dim=-1) - low.float()) / INT4_MAX).bfloat16()
    numbers = (groups - low[..., None].float()) / _divisor(scale.float())[..., None]
    even, odd = numbers.round().clamp(0, INT4_MAX).to(torch.uint8).flatten(1).unflatten(1, (-1, 2)).unbind(-1)
    return {"weight": even | odd << 4, "scale": scale, "low": low}


def _int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """(M, K) times (N, K) transposed, both int8 -> (M, N), int32, exact."""
    rows = x.shape[0]
    if library.level() == library.Level.AVX2 and x.device.type == "cpu":
        sums = torch.empty((rows, weight.shape[0]), dtype=torch.int32)
        library.call("product_int8_avx2", x, weight, rows, *weight.shape, sums)
        return sums
    if x.device.type == "cpu" and not torch.cpu._is_vnni_supported():  # noqa: SLF001 - torch has no public name for it
        return _int8_product_in_float32(x, weight)
    # cuBLAS wants more than 16 rows.
    padded = nn.functional.pad(x, (0, 0, 0, max(0, 17 - rows))) if x.is_cuda else x
    return torch._int_mm(padded, weight.t())[:rows]  # noqa: SLF001 - torch has no public name for it


def _int8_product_in_float32(x: Tensor, weight: Tensor) -> Tensor:
    """Do as `_int8_product`, as exactly, where torch's own int8 product is one number at a time."""
    sums = torch.zeros((x.shape[0], weight.shape[0]), dtype=torch.int32)
    for columns, numbers in zip(x.split(EXACT, dim=1), weight.split(EXACT, dim=1), strict=True):
        sums += (columns.float() @ numbers.float().t()).int()
    return sums


def _by_bands(linear: QuantizedLinear, x: Tensor, rows: slice) -> Tensor:
    """Apply a linear whose weight is unpacked a band of rows at a time."""
    first, end, _ = rows.indices(linear.out_features)
    band = max(1, BAND // linear.in_features)
    outs = []
    for start in range(first, end, band):
        some = slice(start, min(start + band, end))
        bias = None if linear.bias is None else linear.bias[some].to(x.dtype)
        outs.append(nn.functional.linear(x, linear.unpack(some).to(x.dtype), bias))
    return torch.cat(outs, dim=-1) if len(outs) > 1 else outs[0]
