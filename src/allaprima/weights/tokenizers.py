"""Tokenizes prompts for T5 and CLIP with the `tokenizers` library, without importing torch.

T5 reads content, end token, padding. CLIP reads begin token, content, end token, and end tokens as padding. Content
that exceeds the encoder's length is truncated before the end token. The built-in model's vocabulary is a list of words;
words outside the vocabulary are dropped. `Tokens` reports both truncation and dropped words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from allaprima.errors import WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    # `allaprima.flux` imports torch, so the type is imported for type checking only.
    from allaprima.flux.config import ModelConfig

#: Ids of the built-in model's special tokens in the vocabulary that both encoders share. CLIP's begin and end tokens
#: are not among them: CLIP pools at the largest id of a prompt, so they are the last two ids of its own vocabulary.
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL_TOKENS = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}

#: Number of tokens that T5 reads in every published FLUX.1 [schnell].
PUBLISHED_T5_LENGTH = 256
#: Paths of the tokenizers in a published checkpoint: T5's file, and CLIP's folder, which has either the first of
#: `CLIP_FILES` or the other two.
T5_FILE, CLIP_FOLDER = Path("tokenizer_2", "tokenizer.json"), "tokenizer"
CLIP_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


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
    return _read(path, Tokenizer.from_file, str(path))


def published_tokenizers(folders: Sequence[Path], config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers of a published checkpoint.

    The function reads them from the first folder that has both: `tokenizer_2/tokenizer.json` for T5, and
    `tokenizer/tokenizer.json`, or `tokenizer/vocab.json` with `merges.txt`, for CLIP, as in a diffusers folder. Raises
    `WeightsMissing` when no folder has both, and `WeightsCorrupt` for a file that can't be read or that has larger ids
    than the encoder's vocabulary.
    """
    folder = _first_with_tokenizers(folders)
    t5 = _published_t5(folder, config.t5.length)
    clip = _published_clip(folder, config.clip.length)
    for path, tokenizer, vocab_size in (
        (folder / T5_FILE, t5.tokenizer, config.t5.vocab_size),
        (folder / CLIP_FOLDER, clip.tokenizer, config.clip.vocab_size),
    ):
        if (largest := max(tokenizer.get_vocab().values(), default=0)) >= vocab_size:
            raise WeightsCorrupt(f"{path} has token ids up to {largest}, but the encoder has only {vocab_size} tokens")
    return t5, clip


def published_t5_tokenizer(folders: Sequence[Path]) -> PromptTokenizer:
    """Return the T5 tokenizer of a published checkpoint. Folders and errors are those of `published_tokenizers`."""
    return _published_t5(_first_with_tokenizers(folders), PUBLISHED_T5_LENGTH)


def _first_with_tokenizers(folders: Sequence[Path]) -> Path:
    for folder in folders:
        if _has_tokenizers(folder):
            return folder
    raise WeightsMissing(
        f"{folders[0]} holds no tokenizers; only the diffusers folder of FLUX.1 [schnell] has them: copy its folders "
        "tokenizer and tokenizer_2 there, give the folder that has both with --tokenizer, or fetch them with "
        "`allaprima pull flux/schnell`"
    )


def _has_tokenizers(folder: Path) -> bool:
    whole, *pieces = (folder / CLIP_FOLDER / name for name in CLIP_FILES)
    return (folder / T5_FILE).is_file() and (whole.is_file() or all(file.is_file() for file in pieces))


def _published_t5(folder: Path, length: int) -> PromptTokenizer:
    file = folder / T5_FILE
    tokenizer = _without_padding(_read(file, Tokenizer.from_file, str(file)))
    pad_id, end_id = (_special_id(file, tokenizer, text) for text in ("<pad>", "</s>"))
    return PromptTokenizer(tokenizer, length, end_id=end_id, pad_id=pad_id)


def _published_clip(folder: Path, length: int) -> PromptTokenizer:
    whole, *pieces = (folder / CLIP_FOLDER / name for name in CLIP_FILES)
    if whole.is_file():
        tokenizer = _without_padding(_read(whole, Tokenizer.from_file, str(whole)))
    else:
        tokenizer = _read(folder / CLIP_FOLDER, clip_tokenizer, *pieces)
    begin_id, end_id = (
        _special_id(folder / CLIP_FOLDER, tokenizer, text) for text in ("<|startoftext|>", "<|endoftext|>")
    )
    return PromptTokenizer(tokenizer, length, end_id=end_id, pad_id=end_id, begin_id=begin_id)


def clip_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """Build CLIP's byte-level BPE tokenizer, which lower-cases its input, from the two files of OpenAI's release.

    Source: Radford et al. 2021 (2103.00020), section 2.4; huggingface/transformers `convert_slow_tokenizer.py`.
    """
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    end = "<|endoftext|>"
    model = models.BPE.from_file(str(vocabulary), str(merges), unk_token=end, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pieces = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _without_padding(tokenizer: Tokenizer) -> Tokenizer:
    """Disable a tokenizer's own padding and truncation: `PromptTokenizer` pads and truncates."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read(path: Path, read: Callable[..., Tokenizer], *files: Any) -> Tokenizer:
    try:
        return read(*files)
    # The library raises plain `Exception` for a file that it can't read.
    except Exception as exc:
        raise WeightsCorrupt(f"{path} is not a readable tokenizer: {exc}") from exc


def _special_id(path: Path, tokenizer: Tokenizer, text: str) -> int:
    number = tokenizer.token_to_id(text)
    if number is None:
        raise WeightsCorrupt(f"{path} is not FLUX's tokenizer: it has no token {text}")
    return int(number)
