"""Attention against torch's `scaled_dot_product_attention` in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from allaprima.kernels import attention
from allaprima.kernels.attention import CHUNK_LOGITS

#: Batch, heads, queries, keys, width.
SHAPES = [(1, 1, 1, 1, 1), (2, 3, 7, 7, 5), (1, 2, 33, 17, 24), (3, 1, 5, 40, 16)]


def draw(batch: int, heads: int, queries: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(batch, heads, queries, width, generator=generator)
    k, v = torch.randn(2, batch, heads, keys, width, generator=generator)
    return q, k, v


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_equals_torch(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    q, k, v = (x.to(dtype) for x in draw(*shape))
    out = attention(q, k, v)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=tolerance)


def test_bfloat16_attention_is_close_to_float64() -> None:
    q, k, v = (x.bfloat16() for x in draw(2, 3, 33, 33, 24))
    out = attention(q, k, v)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("heads", "queries", "keys"),
    [(2, 3000, 3000), (1, 4500, 4000)],
    ids=["one chunk per head", "two chunks per head, the second one shorter"],
)
def test_chunked_attention_equals_unchunked(heads: int, queries: int, keys: int) -> None:
    q, k, v = draw(1, heads, queries, keys, 8)
    assert heads * queries * keys > CHUNK_LOGITS
    # Parts of heads and queries that are small enough to be computed whole.
    whole = [
        torch.cat([attention(rows, k[:, h : h + 1], v[:, h : h + 1]) for rows in q[:, h : h + 1].split(1500, dim=2)], 2)
        for h in range(heads)
    ]
    torch.testing.assert_close(attention(q, k, v), torch.cat(whole, dim=1), rtol=0, atol=1e-6)


def test_chunked_attention_equals_torch_for_batch() -> None:
    q, k, v = draw(2, 1, 4200, 4200, 4)
    torch.testing.assert_close(attention(q, k, v), scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-5)
