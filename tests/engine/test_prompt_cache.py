"""The prompt cache: bounded in bytes, with eviction of the least recently used value."""

import torch

from allaprima.engine.pipeline import Embeddings, PromptKey
from allaprima.engine.prompt_cache import ByteCache


def embeddings(width: int = 10) -> Embeddings:
    """Return embeddings of 8 times `width` bytes."""
    return Embeddings(torch.zeros(1, 1, width), torch.zeros(1, width))


def cache_of(limit_bytes: int) -> ByteCache[PromptKey, Embeddings]:
    return ByteCache(limit_bytes)


def key(number: int) -> PromptKey:
    return (number,), (number, 0)


def test_cache_returns_value_only_for_its_key() -> None:
    cache, value = cache_of(1000), embeddings()

    assert cache.get(key(1)) is None
    cache.put(key(1), value)

    assert cache.get(key(1)) is value
    assert cache.get(((1,), (1,))) is None


def test_least_recently_used_value_is_evicted() -> None:
    cache = cache_of(3 * embeddings().nbytes)
    for number in (1, 2, 3):
        cache.put(key(number), embeddings())
    cache.get(key(1))

    cache.put(key(4), embeddings())

    assert [number for number in (1, 2, 3, 4) if cache.get(key(number))] == [1, 3, 4]


def test_replaced_value_is_counted_once() -> None:
    cache = cache_of(2 * embeddings().nbytes)
    cache.put(key(1), embeddings())
    for _ in range(10):
        cache.put(key(2), embeddings())

    assert cache.get(key(1))
    assert cache.get(key(2))


def test_value_larger_than_limit_is_not_cached() -> None:
    cache = cache_of(embeddings(10).nbytes)
    cache.put(key(1), embeddings(10))

    cache.put(key(2), embeddings(11))

    assert cache.get(key(1))
    assert cache.get(key(2)) is None
