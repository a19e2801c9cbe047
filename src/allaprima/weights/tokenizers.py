"""Prompts to token ids, for T5 and for CLIP, on the `tokenizers` library.

T5: content, end token, padding. CLIP: begin token, content, end token, padding with the end token. What does not fit
is cut off before the end token, and the caller is told. The built-in model's vocabulary is a list of words; words that
are not in it say nothing to the model, so they are left out and the caller is told which they were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.flux import ModelConfig

#: The built-in model's special tokens and their ids, for both of its encoders.
PAD, END, UNKNOWN = 0, 1, 2
#: CLIP pools at its largest id, so its end token is the vocabulary's last.
SPECIAL_TOKENS = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}

#: Where a published checkpoint has its tokenizers: T5's file, and CLIP's folder with the first file or both others.
T5_FILE, CLIP_FOLDER = Path("tokenizer_2", "tokenizer.json"), "tokenizer"
CLIP_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized prompt."""

    #: Exactly the encoder's length.
    ids: tuple[int, ...]
    #: Words that the vocabulary lacks, as written, each once, in order.
    unknown_words: tuple[str, ...]
    #: How many tokens were cut off.
    over: int


@dataclass(frozen=True, slots=True)
class PromptTokenizer:
    """A tokenizer with an encoder's special tokens and length."""

    tokenizer: Tokenizer
    length: int
    end_id: int
    pad_id: int
    begin_id: int | None = None
    #: Leave tokens with this id out and report their words; None keeps all.
    drop_id: int | None = None

    @property
    def room(self) -> int:
        """How many tokens of a prompt are read."""
        return self.length - (self.begin_id is not None) - 1

    def count(self, prompt: str) -> int:
        """Return how many tokens a prompt has, of which the first `room` are read."""
        encoding = self.tokenizer.encode(prompt, add_special_tokens=False)
        return sum(token != self.drop_id for token in encoding.ids)

    def encode(self, prompt: str) -> Tokens:
        """Return the ids of a prompt, padded or cut to `length`."""
        encoding = self.tokenizer.encode(prompt, add_special_tokens=False)
        content = [token for token in encoding.ids if token != self.drop_id]
        unknown = {
            prompt[start:end]: None
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self.drop_id
        }
        begin = [] if self.begin_id is None else [self.begin_id]
        ids = [*begin, *content[: self.room], self.end_id]
        ids += [self.pad_id] * (self.length - len(ids))
        return Tokens(tuple(ids), tuple(unknown), max(0, len(content) - self.room))


def word_tokenizer(words: list[str]) -> Tokenizer:
    """Return the built-in model's tokenizer: lower-cased words, split at whatever is not a letter or digit."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    vocabulary = SPECIAL_TOKENS | {word: len(SPECIAL_TOKENS) + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), behavior="removed")
    return tokenizer


def word_tokenizers(tokenizer: Tokenizer, config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the built-in model's T5 and CLIP tokenizers over one word list.

    The last two ids of CLIP's vocabulary are no words: its begin and its end token.
    """
    t5 = PromptTokenizer(tokenizer, config.t5.length, end_id=END, pad_id=PAD, drop_id=UNKNOWN)
    clip_end = config.clip.vocab_size - 1
    clip = PromptTokenizer(
        tokenizer, config.clip.length, end_id=clip_end, pad_id=clip_end, begin_id=clip_end - 1, drop_id=UNKNOWN
    )
    return t5, clip


def word_room(config: ModelConfig) -> int:
    """Return how many ids both encoders of a model have for words and for `SPECIAL_TOKENS`."""
    return min(config.t5.vocab_size, config.clip.vocab_size - 2)


def published_tokenizers(folders: Sequence[Path], config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
    """Return the T5 and CLIP tokenizers of a published checkpoint.

    They are taken from the first of the folders that has both: `tokenizer_2/tokenizer.json` for T5, and
    `tokenizer/tokenizer.json` or `tokenizer/vocab.json` with `merges.txt` for CLIP, as diffusers has them.
    Raises `WeightsMissing` with what to do where none has, `WeightsCorrupt` for files that can't be read.
    """
    home = next((folder for folder in folders if _has_tokenizers(folder)), None)
    if home is None:
        raise WeightsMissing(
            f"{folders[0]} holds no tokenizers, which only FLUX.1 [schnell]'s diffusers folder brings: copy its "
            "folders tokenizer and tokenizer_2 there, name the folder that has both with --tokenizer, or let "
            "`allaprima pull flux/schnell` fetch them"
        )
    t5_file, clip_folder = home / T5_FILE, home / CLIP_FOLDER
    clip_files = [clip_folder / name for name in CLIP_FILES]
    t5 = _plain(_read(t5_file, Tokenizer.from_file, str(t5_file)))
    if clip_files[0].is_file():
        clip = _plain(_read(clip_files[0], Tokenizer.from_file, str(clip_files[0])))
    else:
        clip = _read(clip_folder, clip_tokenizer, *clip_files[1:])
    for file, tokenizer, rows in ((t5_file, t5, config.t5.vocab_size), (clip_folder, clip, config.clip.vocab_size)):
        if (largest := max(tokenizer.get_vocab().values(), default=0)) >= rows:
            raise WeightsCorrupt(f"{file} has pieces up to the id {largest}, where the encoder knows {rows}")
    clip_begin, clip_end = (_special(clip_folder, clip, text) for text in ("<|startoftext|>", "<|endoftext|>"))
    t5_pad, t5_end = (_special(t5_file, t5, text) for text in ("<pad>", "</s>"))
    return (
        PromptTokenizer(t5, config.t5.length, end_id=t5_end, pad_id=t5_pad),
        PromptTokenizer(clip, config.clip.length, end_id=clip_end, pad_id=clip_end, begin_id=clip_begin),
    )


def _has_tokenizers(folder: Path) -> bool:
    whole, *pieces = (folder / CLIP_FOLDER / name for name in CLIP_FILES)
    return (folder / T5_FILE).is_file() and (whole.is_file() or all(file.is_file() for file in pieces))


def clip_tokenizer(vocabulary: Path, merges: Path) -> Tokenizer:
    """Return CLIP's byte-level BPE of lower-cased words out of the two files of OpenAI's release.

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


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that neither pads nor cuts: `PromptTokenizer` does."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read(path: Path, read: Callable[..., Tokenizer], *files: Any) -> Tokenizer:
    try:
        return read(*files)
    # The library raises bare Exception for a file that it can't read.
    except Exception as exc:
        raise WeightsCorrupt(f"{path} is not a readable tokenizer: {exc}") from exc


def _special(path: Path, tokenizer: Tokenizer, text: str) -> int:
    number = tokenizer.token_to_id(text)
    if number is None:
        raise WeightsCorrupt(f"{path} is not FLUX's tokenizer: it has no token {text}")
    return int(number)
