"""The compiled attention and `qk_norm_rope` against float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from allaprima.kernels import attention, library, qk_norm_rope
from allaprima.kernels.library import IsaLevel
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

#: Batch, heads, queries, keys, head width.
SHAPES = pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1, 2), (1, 2, 257, 257, 64), (2, 3, 50, 513, 32), (1, 24, 100, 100, 128), (1, 1, 130, 1100, 512)],
    ids=str,
)
Heads = tuple[Tensor, Tensor, Tensor]


def heads(batch: int, count: int, queries: int, keys: int, width: int) -> Heads:
    """Return q, k and v as views of fused rows, as in the networks."""
    q = draw(batch, queries, count * width).unflatten(-1, (count, width)).transpose(1, 2)
    k, v = draw(batch, keys, 2 * count * width).unflatten(-1, (2, count, width)).permute(2, 0, 3, 1, 4)
    return q, k, v


def exact(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    bias = None if bias is None else bias.double()
    return scaled_dot_product_attention(q.double(), k.double(), v.double(), bias, scale=scale)


@SHAPES
def test_attention_equals_float64_within_rounding(shape: tuple[int, ...]) -> None:
    q, k, v = heads(*shape)
    assert error(attention(q, k, v), exact(q, k, v)) < 2 * ROUNDING
    bias = torch.randn(1, *shape[1:4]).bfloat16()
    assert error(attention(q, k, v, bias=bias, scale=0.5), exact(q, k, v, bias, 0.5)) < 4 * ROUNDING


def test_attention_writes_into_slice_of_wider_rows() -> None:
    q, k, v = heads(1, 4, 60, 60, 32)
    wide = torch.zeros(1, 60, 200).bfloat16()
    out = wide[..., 40:168].unflatten(-1, (4, 32)).transpose(1, 2)
    assert attention(q, k, v, out=out).data_ptr() == out.data_ptr()
    assert torch.equal(out, attention(q, k, v))
    assert not wide[..., :40].any()
    assert not wide[..., 168:].any()


@pytest.mark.parametrize("shape", [(1, 1, 300, 700, 64), (1, 24, 70, 70, 32)], ids=str)
def test_attention_bits_do_not_depend_on_threads_or_queries(shape: tuple[int, ...]) -> None:
    q, k, v = heads(*shape)
    assert same_bits_with_any_threads(lambda: attention(q, k, v))
    assert torch.equal(attention(q, k, v)[:, :, 51:53], attention(q[:, :, 51:53], k, v))


def test_attention_reads_no_memory_past_last_row() -> None:
    q, k, v = (draw(1, 33, 1, 64) for _ in range(3))
    expected = attention(*(x.transpose(1, 2) for x in (q, k, v))).clone()
    assert torch.equal(attention(*(at_the_end_of_memory(x).transpose(1, 2) for x in (q, k, v))), expected)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    q, k, v = (100 * x for x in heads(1, 2, 60, 600, 64))
    assert error(attention(q, k, v), exact(q, k, v)) < 4 * ROUNDING


def test_queries_may_be_slices_of_odd_width_rows() -> None:
    wide = draw(1, 60, 3 * 64 + 1)
    q, k, v = (wide[..., i * 64 : (i + 1) * 64].unflatten(-1, (2, 32)).transpose(1, 2) for i in range(3))
    assert torch.equal(
        attention(q, k, v), attention(*(x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)))
    )


def test_minus_infinity_bias_masks_block_of_keys() -> None:
    q, k, v = heads(1, 2, 60, 1100, 64)
    bias = torch.zeros(1, 2, 60, 1100)
    bias[..., :600] = -torch.inf
    assert error(attention(q, k, v, bias=bias), exact(q, k, v, bias)) < 4 * ROUNDING


def test_zero_queries_give_empty_result() -> None:
    q, k, v = heads(1, 2, 0, 5, 64)
    assert attention(q, k, v).shape == (1, 2, 0, 64)


def test_zero_keys_give_nan() -> None:
    q, k, v = heads(1, 2, 5, 0, 64)
    assert attention(q, k, v).isnan().all()


def test_zero_valued_queries_give_mean_of_values() -> None:
    q, k, v = heads(1, 2, 5, 77, 64)
    assert error(attention(0 * q, k, v), v.double().mean(dim=2, keepdim=True).expand(1, 2, 5, 64)) < 2 * ROUNDING


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_non_finite_query_affects_only_its_row(value: float) -> None:
    q, k, v = heads(1, 2, 60, 80, 64)
    before = attention(q, k, v).clone()
    q[0, 1, 7, 3] = value
    after = attention(q, k, v)
    assert not torch.isfinite(after[0, 1, 7]).any()
    after[0, 1, 7] = before[0, 1, 7]
    assert torch.equal(after, before)


def test_non_finite_value_reaches_every_query() -> None:
    q, k, v = heads(1, 1, 60, 80, 64)
    v[0, 0, 79, 5] = torch.inf
    assert not torch.isfinite(attention(q, k, v)[..., 5]).any()
    assert torch.isfinite(attention(q, k, v)[..., 6]).all()


@pytest.mark.parametrize(("length", "count", "width"), [(1, 1, 16), (257, 3, 32), (40, 24, 128), (9, 2, 6)])
def test_qk_norm_rope_equals_float64(length: int, count: int, width: int) -> None:
    qkv, scales = draw(2, length, 3 * count * width), [draw(width), draw(width)]
    angles = torch.randn(2, length, width // 2)
    cos, sin = angles.cos(), angles.sin()
    expected = [part.double() for part in qkv.unflatten(-1, (3, count, width)).unbind(2)]
    for i, scale in enumerate(scales):
        normed = rms_norm(expected[i], (width,), scale.double(), 1e-6)
        pairs = torch.view_as_complex(normed.unflatten(-1, (-1, 2)).contiguous())
        turn = torch.polar(torch.ones_like(angles.double()), angles.double())[:, :, None]
        expected[i] = torch.view_as_real(pairs * turn).flatten(-2)
    with library.limited(IsaLevel.TORCH):
        plain = qk_norm_rope(qkv.clone(), *scales, cos, sin, count)
    actual = qk_norm_rope(qkv.clone(), *scales, cos, sin, count)
    for result, limit in ((actual, ROUNDING), (plain, 3 * ROUNDING)):
        assert error(result, torch.stack(expected, dim=2).flatten(2)) < limit
    assert torch.equal(actual[..., 2 * count * width :], qkv[..., 2 * count * width :])
    assert same_bits_with_any_threads(lambda: qk_norm_rope(qkv.clone(), *scales, cos, sin, count))
