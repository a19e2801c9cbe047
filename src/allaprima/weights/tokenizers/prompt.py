"""Tokenizes prompts for T5 and CLIP with the `tokenizers` library, without importing torch.

T5 reads content, end token, padding. CLIP reads begin token, content, end token, and end tokens as padding. Content
that exceeds the encoder's length is truncated before the end token. The built-in model's vocabulary is a list of words;
words outside the vocabulary are dropped. `Tokens` reports both truncation and dropped words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from allaprima.errors import WeightsCorrupt

if TYPE_CHECKING:
    # `allaprima.flux` imports torch, so the type is imported for type checking only.
    from allaprima.flux.config import ModelConfig

#: Ids of the built-in model's special tokens in the vocabulary that both encoders share. CLIP's begin and end tokens
#: are not among them: CLIP pools at the largest id of a prompt, so they are the last two ids of its own vocabulary.
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL_TOKENS = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenized prompt."""

    #: The token ids, as many as the encoder's length.
    ids: tuple[int, ...]
    #: Words of the prompt that are not in the vocabulary, as written, without duplicates, in order.
    unknown_words: tuple[str, ...]
    #: Number of tokens that were truncated.
    over: int


@dataclass(frozen=True, slots=True)
class PromptTokenizer:
    """A tokenizer, with the special tokens and the length of a text encoder."""

    tokenizer: Tokenizer
    length: int
    end_id: int
    pad_id: int
    begin_id: int | None = None
    #: Tokens with this id are dropped, and their words are reported as unknown; None keeps all tokens.
    drop_id: int | None = None

    @property
    def max_tokens(self) -> int:
        """Most tokens of a prompt that fit in the encoder's length with the special tokens."""
        return self.length - (self.begin_id is not None) - 1

    def count(self, prompt: str) -> int:
        """Return the number of tokens of a prompt before truncation to `max_tokens`."""
        encoding = self.tokenizer.encode(prompt, add_special_tokens=False)
        return sum(token != self.drop_id for token in encoding.ids)

    def encode(self, prompt: str) -> Tokens:
        """Return the ids of a prompt, padded or truncated to `length`."""
        encoding = self.tokenizer.encode(prompt, add_special_tokens=False)
        content = [token for token in encoding.ids if token != self.drop_id]
        unknown = {
            prompt[start:end]: None
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self.drop_id
        }
        begin = [] if self.begin_id is None else [self.begin_id]
        ids = [*begin, *content[: self.max_tokens], self.end_id]
        ids += [self.pad_id] * (self.length - len(ids))
        return Tokens(tuple(ids), tuple(unknown), max(0, len(content) - self.max_tokens))


def word_tokenizer(words: list[str]) -> Tokenizer:
    """Return the built-in model's tokenizer: lower-cased words, split at characters other than letters and digits."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    vocabulary = SPECIAL_TOKENS | {word: len(SPECIAL_TOKENS) + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), behavior="removed")
    return tokenizer


def word_t5_tokenizer(tokenizer: Tokenizer, length: int) -> PromptTokenizer:
    """Return the built-in model's T5 tokenizer over its word list."""
    return PromptTokenizer(tokenizer, length, end_id=END, pad_id=PAD, drop_id=UNKNOWN)


def word_tokenizers(tokenizer: Tokenizer, config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the built-in model's T5 and CLIP tokenizers, which share one word list.

    The last two ids of CLIP's vocabulary are its begin token and its end token.
    """
    t5 = word_t5_tokenizer(tokenizer, config.t5.length)
    clip_end = config.clip.vocab_size - 1
    clip = PromptTokenizer(
        tokenizer, config.clip.length, end_id=clip_end, pad_id=clip_end, begin_id=clip_end - 1, drop_id=UNKNOWN
    )
    return t5, clip


def read_word_list(path: Path) -> Tokenizer:
    """Read a tokenizer from a file of the `tokenizers` library. Raises `WeightsCorrupt` naming the file."""
    return read_tokenizer(str(path), Tokenizer.from_file, str(path))


def read_tokenizer(name: str, read: Callable[..., Tokenizer], *arguments: Any) -> Tokenizer:
    """Return what `read` returns for the arguments. Raises `WeightsCorrupt` with `name` for any error of the library.

    name: what is read, for the message.
    """
    try:
        return read(*arguments)
    # The library raises plain `Exception` for a file that it can't read.
    except Exception as exc:
        raise WeightsCorrupt(f"{name} is not a readable tokenizer: {exc}") from exc
