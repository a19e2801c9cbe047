"""Quantized linears against plain linears: odd shapes, outliers, zeros and non-finite values."""

import pytest
import torch
from torch import Tensor, nn

from allaprima.kernels import Float8Linear, Int4WeightLinear, Int8Linear, Int8WeightLinear, QuantizedLinear
from allaprima.kernels import quantized as kernels

#: The largest relative error for normal weights and activations: about one step of the format's grid.
KINDS: dict[type[QuantizedLinear], float] = {
    Int8Linear: 0.02,
    Int8WeightLinear: 0.015,
    Float8Linear: 0.05,
    Int4WeightLinear: 0.12,
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SHAPES = pytest.mark.parametrize("shape", [(1, 64, 8), (257, 192, 40), (5, 70, 33), (3, 16, 129)])


def packed(kind: type[QuantizedLinear], plain: nn.Linear) -> QuantizedLinear:
    linear = kind.like(plain, plain.weight.dtype)
    state = dict(linear.pack(plain.weight.data))
    if plain.bias is not None:
        state["bias"] = plain.bias.data
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in linear.state_dict().items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in state.items()
    }
    linear.load_state_dict(state, assign=True)
    return linear


def random(tokens: int, columns: int, rows: int, *, bias: bool = True) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(tokens + columns + rows)
    return nn.Linear(columns, rows, bias=bias).requires_grad_(requires_grad=False), torch.randn(tokens, columns)


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@EVERY_KIND
@SHAPES
def test_quantized_linear_is_close_to_plain_linear(kind: type[QuantizedLinear], shape: tuple[int, int, int]) -> None:
    plain, x = random(*shape)
    actual = packed(kind, plain)(x)
    assert actual.dtype == x.dtype
    assert 0 < error(actual, plain(x)) < KINDS[kind]


@EVERY_KIND
def test_leading_axes_and_missing_bias_are_supported(kind: type[QuantizedLinear]) -> None:
    plain, x = random(6, 64, 8, bias=False)
    actual = packed(kind, plain)(x.reshape(2, 3, 64))
    assert actual.shape == (2, 3, 8)
    assert torch.equal(actual.reshape(6, 8), packed(kind, plain)(x))


@pytest.mark.parametrize("kind", [Int8WeightLinear, Int4WeightLinear, Int8Linear])
def test_dequantized_weight_is_within_half_a_step(kind: type[QuantizedLinear]) -> None:
    plain, _ = random(1, 130, 20)
    linear = packed(kind, plain)
    steps = (plain.weight.abs().amax(dim=1) / 127) if kind is not Int4WeightLinear else linear.scale.float().amax(dim=1)
    # The 4-bit format's scale and lowest value are themselves rounded to bfloat16.
    slack = 1.2 if kind is Int4WeightLinear else 1.001
    off = (linear.unpack(slice(None)) - plain.weight).abs().amax(dim=1)
    assert (off <= steps / 2 * slack).all()


@pytest.mark.parametrize("kind", [Int8Linear, Float8Linear])
def test_outlier_token_does_not_change_other_tokens(kind: type[QuantizedLinear]) -> None:
    plain, x = random(4, 64, 8)
    linear = packed(kind, plain)
    before = linear(x)
    x[2, 5] = 1e4
    after = linear(x)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert error(after[2], plain(x)[2]) < KINDS[kind]


@pytest.mark.parametrize("kind", [Int8Linear, Int8WeightLinear, Int4WeightLinear])
def test_token_result_does_not_depend_on_batch(kind: type[QuantizedLinear]) -> None:
    plain, x = random(40, 192, 24)
    linear = packed(kind, plain)
    if kind is Int8Linear:
        assert torch.equal(linear(x)[7:8], linear(x[7:8]))
    else:
        assert error(linear(x)[7:8], linear(x[7:8])) < 1e-6


@EVERY_KIND
def test_zero_input_or_weight_gives_bias(kind: type[QuantizedLinear]) -> None:
    plain, _ = random(1, 64, 8)
    assert torch.equal(packed(kind, plain)(torch.zeros(2, 64)), plain.bias.expand(2, 8))
    plain.weight.zero_()
    assert torch.equal(packed(kind, plain)(torch.ones(2, 64)), plain.bias.expand(2, 8))


@EVERY_KIND
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_non_finite_token_affects_only_its_result(kind: type[QuantizedLinear], value: float) -> None:
    plain, x = random(3, 64, 8)
    x[1, 4] = value
    finite = torch.isfinite(packed(kind, plain)(x)).all(dim=1)
    assert finite.tolist() == [True, False, True]


@EVERY_KIND
def test_chunk_size_does_not_change_result(kind: type[QuantizedLinear], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, x = random(9, 64, 24)
    whole = packed(kind, plain)
    before = whole(x)
    monkeypatch.setattr(kernels, "CHUNK_VALUES", 5 * 64)
    chunked = packed(kind, plain)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in chunked.state_dict().items())
    assert torch.allclose(chunked(x), before, atol=1e-6)


@pytest.mark.parametrize(("kind", "bits"), [(Int8Linear, 8.0), (Int4WeightLinear, 4.5), (Float8Linear, 8.0)])
def test_packed_weight_has_expected_size(kind: type[QuantizedLinear], bits: float) -> None:
    tensors = kind.pack(torch.empty(512, 4096, device="meta"))
    actual = sum(tensor.nbytes for tensor in tensors.values()) * 8 / (512 * 4096)
    assert actual == pytest.approx(bits, rel=2e-3)
