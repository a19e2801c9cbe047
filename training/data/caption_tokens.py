"""Captions as token ids."""

import torch
from numpy.random import Generator
from torch import Tensor

from allaprima.flux import SKETCH
from allaprima.weights.tokenizer import PromptTokenizer, word_tokenizer, word_tokenizers
from training.data.captions import MARKS, caption, marked_caption, words
from training.data.scenes import Scene


def tokenizers() -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers over the captions' words."""
    return word_tokenizers(word_tokenizer(words()), SKETCH)


class Captions:
    """Words scenes and turns the sentences into token ids."""

    def __init__(self) -> None:
        self._t5, self._clip = tokenizers()

    def ids(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor]:
        """Return the T5 and the CLIP ids of one new caption a scene: (B, T) each, int64."""
        return self._encoded([caption(scene, rng) for scene in scenes])

    def told(self, scenes: list[Scene], rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `ids` would, and of which subject each T5 token tells, from 1, or 0 of none: (B, T), int64."""
        prompts = [marked_caption(scene, rng) for scene in scenes]
        t5, clip = self._encoded(prompts)
        whose = torch.zeros_like(t5)
        for row, prompt in zip(whose, prompts, strict=True):
            told = self._whose(prompt)[: self._t5.room]
            row[: len(told)] = torch.tensor(told)
        return t5, clip, whose

    def _encoded(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        t5 = torch.tensor([self._t5.encode(prompt).ids for prompt in prompts])
        return t5, torch.tensor([self._clip.encode(prompt).ids for prompt in prompts])

    def _whose(self, marked: str) -> list[int]:
        """Return of which subject each token of a marked caption tells."""
        encoding = self._t5.tokenizer.encode(marked, add_special_tokens=False)
        told = []
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            # The mark stands at the end of a word, which may be several tokens ("T-Rex").
            word = marked[start:].split(maxsplit=1)[0]
            if token != self._t5.drop_id:
                told.append(1 + max(MARKS.find(character) for character in word))
        return told
