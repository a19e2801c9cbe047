"""Prompts that were read before: what the text encoders made of them, kept for the next request that says the same."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A prompt as the transformer reads it."""

    #: (1, T, context_in_dim)
    txt: Tensor
    #: (1, vec_in_dim)
    vec: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.txt.nbytes + self.vec.nbytes


#: The token ids of T5 and of CLIP: prompts that give the same are the same to the model.
PromptKey = tuple[tuple[int, ...], tuple[int, ...]]


class PromptCache:
    """The embeddings of one model's latest prompts, up to a number of bytes; the longest unused goes first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[PromptKey, Embeddings] = OrderedDict()
        self._nbytes = 0
        #: How often a prompt was found, and how often it had to be read.
        self.hits, self.misses = 0, 0

    def get(self, key: PromptKey) -> Embeddings | None:
        """Return a prompt's embeddings, if they are kept."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: PromptKey, embeddings: Embeddings) -> None:
        """Keep a prompt's embeddings, unless they alone are over the limit."""
        if embeddings.nbytes > self._limit_bytes:
            return
        if (before := self._kept.pop(key, None)) is not None:
            self._nbytes -= before.nbytes
        self._kept[key] = embeddings
        self._nbytes += embeddings.nbytes
        while self._nbytes > self._limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._nbytes -= oldest.nbytes
