"""The compiled linears against float64: odd shapes, extreme values, batches and thread counts."""

import pytest
import torch
from torch import Tensor, nn

from allaprima.kernels import Epilogue, Int8Linear, Linear, Segment, concat_into, library
from allaprima.kernels.library import IsaLevel
from allaprima.kernels.quantized import _quantize_native, quantize_rows
from tests.kernels.native import (
    AT_EVERY_LEVEL,
    NEEDS_AVX512,
    ROUNDING,
    at_the_end_of_memory,
    draw,
    error,
    same_bits_with_any_threads,
)

pytestmark = [NEEDS_AVX512, AT_EVERY_LEVEL]

SHAPES = pytest.mark.parametrize(
    "shape",
    [(1, 64, 64), (257, 192, 72), (6, 70, 33), (13, 5002, 129), (700, 8, 16), (2, 2, 1), (47, 1600, 300), (17, 32, 31)],
    ids=str,
)
KINDS = pytest.mark.parametrize("kind", [Linear, Int8Linear])
AnyLinear = Linear | Int8Linear


def make_linear(kind: type[AnyLinear], columns: int, rows: int, *, bias: bool = True) -> tuple[AnyLinear, Tensor]:
    """Return a linear and its effective weight in float64."""
    plain = Linear(columns, rows, bias=bias).bfloat16().requires_grad_(requires_grad=False)
    if kind is Linear:
        return plain, plain.weight.double()
    packed = Int8Linear.like(plain, torch.bfloat16)
    state = packed.pack(plain.weight) | ({"bias": plain.bias} if bias else {})
    packed.load_state_dict(state, assign=True)
    return packed, packed.weight.double() * packed.scale[:, None].double()


def exact(linear: AnyLinear, weight: Tensor, x: Tensor) -> Tensor:
    """Return the result of a linear in float64; activations of int8 linears are quantized first."""
    values = x.double()
    if isinstance(linear, Int8Linear):
        packed, scale = quantize_rows(x.reshape(-1, x.shape[-1]))
        values = (packed.double() * scale[:, None].double()).reshape(x.shape)
    return values @ weight.t() + (0 if linear.bias is None else linear.bias.double())


@KINDS
@SHAPES
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_float64_within_rounding(kind: type[AnyLinear], shape: tuple[int, int, int], bias: bool) -> None:
    tokens, columns, rows = shape
    linear, weight = make_linear(kind, columns, rows, bias=bias)
    x = draw(tokens, columns)
    assert error(linear(x), exact(linear, weight, x)) < ROUNDING


@KINDS
def test_epilogue_is_applied_in_order(kind: type[AnyLinear]) -> None:
    linear, weight = make_linear(kind, 130, 70)
    x, gate, residual = draw(2, 19, 130), draw(2, 1, 70), draw(2, 19, 70)
    plain = exact(linear, weight, x)
    curved = nn.functional.gelu(plain, approximate="tanh")
    assert error(linear(x, Epilogue(gelu=True)), curved) < ROUNDING
    assert error(linear(x, Epilogue(gate=gate)), gate.double() * plain) < ROUNDING
    assert error(linear(x, Epilogue(residual=residual)), residual.double() + plain) < ROUNDING
    everything = linear(x, Epilogue(gelu=True, gate=gate, residual=residual))
    assert error(everything, residual.double() + gate.double() * curved) < ROUNDING


@KINDS
def test_row_slice_gives_same_slice_of_result(kind: type[AnyLinear]) -> None:
    linear, _ = make_linear(kind, 66, 200)
    x = draw(9, 66)
    whole = linear(x)
    assert torch.equal(linear(x, rows=slice(70)), whole[:, :70])
    assert torch.equal(linear(x, rows=slice(70, None)), whole[:, 70:])


@KINDS
def test_concat_into_equals_cat(kind: type[AnyLinear]) -> None:
    linear, _ = make_linear(kind, 64, 48)
    other, _ = make_linear(kind, 64, 21)
    x = draw(1, 11, 64)
    with torch.no_grad():
        segments = [Segment(48, lambda out: linear(x, out=out)), Segment(21, lambda out: other(x, out=out))]
        columns = concat_into(segments, axis=-1, shape=x.shape, like=x)
        segments = [Segment(11, lambda out: linear(x, out=out)), Segment(11, lambda _out: linear(x))]
        rows = concat_into(segments, axis=1, shape=(1, 11, 48), like=x)
    assert torch.equal(columns, torch.cat((linear(x), other(x)), dim=-1))
    assert torch.equal(rows, torch.cat((linear(x), linear(x)), dim=1))


@KINDS
def test_activations_may_be_slices_of_wider_rows(kind: type[AnyLinear]) -> None:
    linear, _ = make_linear(kind, 64, 24)
    wide = draw(1, 17, 201)
    assert torch.equal(linear(wide[..., 30:94]), linear(wide[..., 30:94].clone()))


@KINDS
@pytest.mark.parametrize(("tokens", "columns", "rows"), [(3, 3100, 70), (400, 3100, 64), (40, 3104, 600)])
def test_linear_bits_do_not_depend_on_threads_or_batch(
    kind: type[AnyLinear], tokens: int, columns: int, rows: int
) -> None:
    linear, _ = make_linear(kind, columns, rows)
    x = draw(tokens, columns)
    assert same_bits_with_any_threads(lambda: linear(x))
    assert all(torch.equal(linear(x)[i], linear(x[i : i + 1])[0]) for i in (0, tokens // 2, tokens - 1))


@KINDS
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_non_finite_token_affects_only_its_result(kind: type[AnyLinear], value: float) -> None:
    linear, _ = make_linear(kind, 64, 70)
    x = draw(9, 64)
    before = linear(x)
    x[4, 7] = value
    after = linear(x)
    assert not torch.isfinite(after[4]).any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(after[others], before[others])


@KINDS
def test_zeros_give_bias_and_outliers_are_accurate(kind: type[AnyLinear]) -> None:
    linear, weight = make_linear(kind, 128, 40)
    assert torch.equal(linear(torch.zeros(3, 128).bfloat16()), linear.bias.expand(3, 40))
    x = draw(5, 128)
    x[2, 3], x[3, 9] = 3e4, -1e-30
    assert error(linear(x), exact(linear, weight, x)) < ROUNDING


@pytest.mark.parametrize("shape", [(257, 192, 72), (13, 5002, 129)], ids=str)
def test_int8_linear_has_same_bits_at_every_level(shape: tuple[int, int, int]) -> None:
    tokens, columns, rows = shape
    linear, _ = make_linear(Int8Linear, columns, rows)
    x = draw(tokens, columns)
    actual = linear(x)
    with library.limited(IsaLevel.AVX512):
        assert torch.equal(linear(x), actual)


@KINDS
@pytest.mark.parametrize("tokens", [1, 15, 17, 33])
def test_linear_reads_no_memory_past_last_row(kind: type[AnyLinear], tokens: int) -> None:
    linear, weight = make_linear(kind, 64, 40)
    x = at_the_end_of_memory(draw(tokens, 64))
    assert error(linear(x), exact(linear, weight, x)) < ROUNDING
    with torch.no_grad():
        linear.weight = (
            nn.Parameter(at_the_end_of_memory(linear.weight), requires_grad=False)
            if kind is Linear
            else (at_the_end_of_memory(linear.weight))
        )
    assert error(linear(x), exact(linear, weight, x)) < ROUNDING


def test_products_of_extreme_values_are_exact() -> None:
    weight = torch.full((70, 15360), -127, dtype=torch.int8)
    linear = Int8Linear.like(nn.Linear(15360, 70, bias=False), torch.bfloat16)
    linear.load_state_dict({"weight": weight, "scale": torch.ones(70)}, assign=True)
    x = torch.full((7, 15360), 127.0).bfloat16()
    expected = torch.tensor(-127.0 * 127 * 15360)
    assert torch.equal(linear(x), expected.bfloat16().expand(7, 70))
    assert torch.equal(linear(-x), -expected.bfloat16().expand(7, 70))


@pytest.mark.parametrize("columns", [1, 3, 4, 70, 257, 3072])
def test_native_quantization_equals_quantize_rows(columns: int) -> None:
    x = draw(40, columns)
    x[3] = 0
    x[5, 0] = 1e30
    x[7] = 1e-38 * torch.arange(columns)
    packed, scale, sums = _quantize_native(x)
    expected, expected_scale = quantize_rows(x)
    assert torch.equal(packed[:, :columns], expected)
    assert not packed[:, columns:].any()
    assert torch.equal(scale, expected_scale)
    assert torch.equal(sums, expected.sum(dim=1, dtype=torch.int32))


@KINDS
def test_torch_linear_equals_native_within_rounding(kind: type[AnyLinear]) -> None:
    linear, _ = make_linear(kind, 192, 72)
    x, gate, residual = draw(1, 50, 192), draw(1, 1, 72), draw(1, 50, 72)
    epilogue = Epilogue(gelu=True, gate=gate, residual=residual)
    actual = linear(x, epilogue)
    with library.limited(IsaLevel.TORCH):
        assert error(actual, linear(x, epilogue)) < 3 * ROUNDING


@KINDS
def test_zero_tokens_or_rows_give_empty_result(kind: type[AnyLinear]) -> None:
    linear, _ = make_linear(kind, 64, 48)
    assert linear(draw(1, 0, 64)).shape == (1, 0, 48)
    assert linear(draw(1, 3, 64), rows=slice(0)).shape == (1, 3, 0)


@KINDS
def test_unsupported_shapes_fall_back_to_torch(kind: type[AnyLinear]) -> None:
    linear, weight = make_linear(kind, 64, 48)
    x = draw(2, 3, 5, 64)
    assert error(linear(x.transpose(0, 1)), exact(linear, weight, x).transpose(0, 1)) < 2 * ROUNDING
    residual = draw(2, 1, 48)
    assert (
        error(linear(x[0], Epilogue(residual=residual[:1])), exact(linear, weight, x[0]) + residual[:1].double())
        < 2 * ROUNDING
    )


def test_gradients_are_computed_when_recorded() -> None:
    linear = Linear(64, 48).bfloat16()
    linear(draw(3, 64), Epilogue(gelu=True)).sum().backward()
    assert linear.weight.grad is not None
