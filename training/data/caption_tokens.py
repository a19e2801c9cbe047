"""Token ids of captions for the two text encoders, and the number of the subject that each token describes.

Dimension key: B batch, T tokens.
"""

import torch
from numpy.random import Generator
from torch import Tensor

from allaprima.flux import SKETCH
from allaprima.weights.tokenizers import PromptTokenizer, word_tokenizer, word_tokenizers
from training.data.captions import MARKS, caption, marked_caption, vocabulary
from training.data.scenes import Scene


def tokenizers() -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers, whose vocabulary is that of the captions."""
    return word_tokenizers(word_tokenizer(vocabulary()), SKETCH)


class CaptionTokenizer:
    """Generates captions of scenes and tokenizes them."""

    def __init__(self) -> None:
        self._t5, self._clip = tokenizers()

    def tokenize(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor]:
        """Return the T5 ids and the CLIP ids of a random caption for each scene: (B, T) each, int64."""
        return self._encode([caption(scene, rng) for scene in scenes])

    def tokenize_with_subjects(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the result of `tokenize` for the same generator state, and the subject that each T5 token describes.

        The third tensor has the numbers of the subjects, from 1, or 0 for none: (B, T), int64.
        """
        captions = [marked_caption(scene, rng) for scene in scenes]
        t5, clip = self._encode(captions)
        subjects = torch.zeros_like(t5)
        for row, marked in zip(subjects, captions, strict=True):
            tags = self._subject_tags(marked)[: self._t5.max_tokens]
            row[: len(tags)] = torch.tensor(tags)
        return t5, clip, subjects

    def _encode(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        t5 = torch.tensor([self._t5.encode(text).ids for text in captions])
        return t5, torch.tensor([self._clip.encode(text).ids for text in captions])

    def _subject_tags(self, marked: str) -> list[int]:
        """Return the number of the subject that each token of a marked caption describes, 0 for none."""
        encoding = self._t5.tokenizer.encode(marked, add_special_tokens=False)
        tags = []
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            # The mark is at the end of a word, and a word can have several tokens ("T-Rex").
            word = marked[start:].split(maxsplit=1)[0]
            if token != self._t5.drop_id:
                tags.append(1 + max(MARKS.find(character) for character in word))
        return tags
