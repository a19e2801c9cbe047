"""A cache of prompt embeddings and modulations: a later request with the same prompt does not compute them again."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class _Sized(Protocol):
    @property
    def nbytes(self) -> int:
        """Size in bytes."""


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=_Sized)


class ByteCache(Generic[Key, Value]):
    """A least-recently-used cache, bounded by the bytes of its values. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        #: The values in order of use, the least recently used first.
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return the cached value, or None."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Key, value: Value) -> None:
        """Cache a value, evicting the least recently used; a value larger than the limit is not cached."""
        if value.nbytes > self._limit_bytes:
            return
        with self._lock:
            if (replaced := self._values.pop(key, None)) is not None:
                self._nbytes -= replaced.nbytes
            self._values[key] = value
            self._nbytes += value.nbytes
            while self._nbytes > self._limit_bytes:
                _, evicted = self._values.popitem(last=False)
                self._nbytes -= evicted.nbytes
