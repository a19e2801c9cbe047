"""The cache: bounded in bytes, the longest unused gone first."""

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


def test_what_was_put_is_found_and_counted() -> None:
    cache, kept = cache_of(1000), embeddings()

    assert cache.get(key(1)) is None
    cache.put(key(1), kept)

    assert cache.get(key(1)) is kept
    assert cache.get(((1,), (1,))) is None
    assert (cache.hits, cache.misses) == (1, 2)


def test_the_longest_unused_goes_when_the_bytes_are_used_up() -> None:
    cache = cache_of(3 * embeddings().nbytes)
    for number in (1, 2, 3):
        cache.put(key(number), embeddings())
    cache.get(key(1))

    cache.put(key(4), embeddings())

    assert [number for number in (1, 2, 3, 4) if cache.get(key(number))] == [1, 3, 4]


def test_putting_again_takes_no_more_room() -> None:
    cache = cache_of(2 * embeddings().nbytes)
    cache.put(key(1), embeddings())
    for _ in range(10):
        cache.put(key(2), embeddings())

    assert cache.get(key(1))
    assert cache.get(key(2))


def test_what_is_over_the_limit_alone_is_not_kept_and_drives_nothing_out() -> None:
    cache = cache_of(embeddings(10).nbytes)
    cache.put(key(1), embeddings(10))

    cache.put(key(2), embeddings(11))

    assert cache.get(key(1))
    assert cache.get(key(2)) is None
