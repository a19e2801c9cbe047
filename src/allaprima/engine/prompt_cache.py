"""What was worked out before, kept for the next request that asks the same."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class _Weighty(Protocol):
    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=_Weighty)


class ByteCache(Generic[Key, Value]):
    """The latest values by key, up to a number of bytes; the longest unused goes first. Threads may share it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()
        #: How often a value was found, and how often it had to be worked out.
        self.hits, self.misses = 0, 0

    def get(self, key: Key) -> Value | None:
        """Return what is kept under a key, if anything."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, unless it alone is over the limit."""
        if value.nbytes > self._limit_bytes:
            return
        with self._lock:
            if (before := self._kept.pop(key, None)) is not None:
                self._nbytes -= before.nbytes
            self._kept[key] = value
            self._nbytes += value.nbytes
            while self._nbytes > self._limit_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._nbytes -= oldest.nbytes
