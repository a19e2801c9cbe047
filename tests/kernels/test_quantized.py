"""Packed linears against the plain ones they replace, over odd shapes, outliers, zeros and infinities."""

import pytest
import torch
from torch import Tensor, nn

from allaprima.kernels import Float8Linear, Int4WeightLinear, Int8Linear, Int8WeightLinear, QuantizedLinear
from allaprima.kernels import quantized as kernels

#: The largest relative error of normal weights and activations: about a step of the form's grid.
KINDS: dict[type[QuantizedLinear], float] = {
    Int8Linear: 0.02,
    Int8WeightLinear: 0.015,
    Float8Linear: 0.05,
    Int4WeightLinear: 0.12,
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SHAPES = pytest.mark.parametrize("shape", [(1, 64, 8), (257, 192, 40), (5, 70, 33), (3, 16, 129)])


def packed(kind: type[QuantizedLinear], plain: nn.Linear) -> QuantizedLinear:
    made = kind.like(plain, plain.weight.dtype)
    state = dict(made.pack(plain.weight.data))
    if plain.bias is not None:
        state["bias"] = plain.bias.data
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in made.state_dict().items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in state.items()
    }
    made.load_state_dict(state, assign=True)
    return made


def random(tokens: int, columns: int, rows: int, *, bias: bool = True) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(tokens + columns + rows)
    return nn.Linear(columns, rows, bias=bias).requires_grad_(requires_grad=False), torch.randn(tokens, columns)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@EVERY_KIND
@SHAPES
def test_a_packed_linear_is_near_the_plain_one(kind: type[QuantizedLinear], shape: tuple[int, int, int]) -> None:
    plain, x = random(*shape)
    found = packed(kind, plain)(x)
    assert found.dtype == x.dtype
    assert 0 < error(found, plain(x)) < KINDS[kind]


@EVERY_KIND
def test_leading_axes_and_a_missing_bias_are_kept(kind: type[QuantizedLinear]) -> None:
    plain, x = random(6, 64, 8, bias=False)
    found = packed(kind, plain)(x.reshape(2, 3, 64))
    assert found.shape == (2, 3, 8)
    assert torch.equal(found.reshape(6, 8), packed(kind, plain)(x))


@pytest.mark.parametrize("kind", [Int8WeightLinear, Int4WeightLinear, Int8Linear])
def test_the_weight_that_is_used_is_within_half_a_step_of_the_given_one(kind: type[QuantizedLinear]) -> None:
    plain, _ = random(1, 130, 20)
    linear = packed(kind, plain)
    steps = (plain.weight.abs().amax(dim=1) / 127) if kind is not Int4WeightLinear else linear.scale.float().amax(dim=1)
    # The four-bit form's scale and lowest value are themselves rounded to bfloat16.
    slack = 1.2 if kind is Int4WeightLinear else 1.001
    off = (linear.unpack(slice(None)) - plain.weight).abs().amax(dim=1)
    assert (off <= steps / 2 * slack).all()


@pytest.mark.parametrize("kind", [Int8Linear, Float8Linear])
def test_one_token_with_an_outlier_leaves_the_others_as_they_were(kind: type[QuantizedLinear]) -> None:
    plain, x = random(4, 64, 8)
    linear = packed(kind, plain)
    before = linear(x)
    x[2, 5] = 1e4
    after = linear(x)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert error(after[2], plain(x)[2]) < KINDS[kind]


@pytest.mark.parametrize("kind", [Int8Linear, Int8WeightLinear, Int4WeightLinear])
def test_a_token_gets_the_same_bits_alone_as_among_others(kind: type[QuantizedLinear]) -> None:
    plain, x = random(40, 192, 24)
    linear = packed(kind, plain)
    if kind is Int8Linear:
        assert torch.equal(linear(x)[7:8], linear(x[7:8]))
    else:
        assert error(linear(x)[7:8], linear(x[7:8])) < 1e-6


@EVERY_KIND
def test_zeros_give_the_bias(kind: type[QuantizedLinear]) -> None:
    plain, _ = random(1, 64, 8)
    assert torch.equal(packed(kind, plain)(torch.zeros(2, 64)), plain.bias.expand(2, 8))
    plain.weight.zero_()
    assert torch.equal(packed(kind, plain)(torch.ones(2, 64)), plain.bias.expand(2, 8))


@EVERY_KIND
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_so_in_its_own_token_alone(kind: type[QuantizedLinear], value: float) -> None:
    plain, x = random(3, 64, 8)
    x[1, 4] = value
    finite = torch.isfinite(packed(kind, plain)(x)).all(dim=1)
    assert finite.tolist() == [True, False, True]


@EVERY_KIND
def test_bands_change_nothing(kind: type[QuantizedLinear], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, x = random(9, 64, 24)
    whole = packed(kind, plain)
    before = whole(x)
    monkeypatch.setattr(kernels, "BAND", 5 * 64)
    banded = packed(kind, plain)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in banded.state_dict().items())
    assert torch.allclose(banded(x), before, atol=1e-6)


@pytest.mark.parametrize(("kind", "bits"), [(Int8Linear, 8.0), (Int4WeightLinear, 4.5), (Float8Linear, 8.0)])
def test_a_packed_weight_takes_the_bits_that_it_claims(kind: type[QuantizedLinear], bits: float) -> None:
    tensors = kind.pack(torch.empty(512, 4096, device="meta"))
    found = sum(tensor.nbytes for tensor in tensors.values()) * 8 / (512 * 4096)
    assert found == pytest.approx(bits, rel=2e-3)
