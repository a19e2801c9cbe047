"""Finds and reads the two tokenizers of a published FLUX.1 [schnell].

Each of the two comes from the first of these that has it: the folder that the operator names, the model's folders in
the order of a diffusers folder, for T5 the GGUF file that holds it, the pulled layouts, and the package. All published
files of FLUX.1 [schnell] are used with the same two tokenizers, so the package's fit them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.formats.container import Container
from allaprima.weights.formats.gguf import GGUFContainer
from allaprima.weights.tokenizers import clip
from allaprima.weights.tokenizers.clip import read_clip_tokenizer
from allaprima.weights.tokenizers.gguf import has_tokenizer, read_gguf_tokenizer
from allaprima.weights.tokenizers.packaged import CLIP_FILE, FOLDER, T5_FILE, packaged_clip, packaged_t5
from allaprima.weights.tokenizers.prompt import PromptTokenizer, read_tokenizer

if TYPE_CHECKING:
    # `allaprima.flux` imports torch, so the type is imported for type checking only.
    from allaprima.flux.config import ModelConfig

#: Number of tokens that T5 reads in every published FLUX.1 [schnell].
PUBLISHED_T5_LENGTH = 256
#: Folders and files of the tokenizers in a diffusers folder. CLIP's folder has either the first file or the other two.
T5_FOLDER, CLIP_FOLDER = "tokenizer_2", "tokenizer"
WHOLE_FILE, VOCABULARY_FILE, MERGES_FILE = "tokenizer.json", "vocab.json", "merges.txt"
#: The file of SentencePiece, which is not read.
SENTENCEPIECE_FILE = "spiece.model"
#: Embeddings have rows for a multiple of this number of tokens: T5's 32,128 rows for 32,100 tokens.
_VOCABULARY_STEP = 128


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """Where the tokenizer of one text encoder comes from."""

    #: The file or folder, or "the package".
    name: str
    #: Raises `WeightsCorrupt` naming the file.
    read: Callable[[], Tokenizer]
    #: Which files of the model are not used for it, and why; empty if there are none.
    note: str = ""
    is_packaged: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass(frozen=True, slots=True)
class TokenizerSources:
    """Where the two tokenizers of a model come from. As text: "T5 from FILE, CLIP from the package"."""

    #: The model's first folder, for messages.
    model: Path
    t5_source: TokenizerSource
    clip_source: TokenizerSource

    def load(self, config: ModelConfig) -> tuple[PromptTokenizer, PromptTokenizer]:
        """Read the tokenizers of T5 and CLIP.

        Raises `WeightsCorrupt` naming a file that can't be read, lacks a special token, or has larger ids than the
        encoder's vocabulary, and `WeightsMissing` if the package's tokenizer is for another vocabulary than the
        encoder's.
        """
        t5, clip_ = self.t5(config.t5.length), self._clip(config.clip.length)
        self._check_vocabulary("T5", self.t5_source, t5, config.t5.vocab_size)
        self._check_vocabulary("CLIP", self.clip_source, clip_, config.clip.vocab_size)
        return t5, clip_

    def t5(self, length: int = PUBLISHED_T5_LENGTH) -> PromptTokenizer:
        """Read the tokenizer of T5. Raises `WeightsCorrupt` for a file that can't be read or lacks a special token."""
        tokenizer = _read(self.t5_source)
        pad_id, end_id = (_special_id(self.t5_source, tokenizer, text) for text in ("<pad>", "</s>"))
        return PromptTokenizer(tokenizer, length, end_id=end_id, pad_id=pad_id)

    def _clip(self, length: int) -> PromptTokenizer:
        tokenizer = _read(self.clip_source)
        begin_id, end_id = (_special_id(self.clip_source, tokenizer, text) for text in (clip.BEGIN, clip.END))
        return PromptTokenizer(tokenizer, length, end_id=end_id, pad_id=end_id, begin_id=begin_id)

    def _check_vocabulary(
        self, encoder: str, source: TokenizerSource, tokenizer: PromptTokenizer, vocab_size: int
    ) -> None:
        largest = max(tokenizer.tokenizer.get_vocab().values(), default=0)
        rows = -(-(largest + 1) // _VOCABULARY_STEP) * _VOCABULARY_STEP
        if source.is_packaged and not largest < vocab_size <= rows:
            raise WeightsMissing(
                f"the {encoder} text encoder of {self.model} has {vocab_size} tokens, and the tokenizer in the package "
                f"has {largest + 1}; give the folder of the model's own tokenizers with --tokenizer"
            )
        if largest >= vocab_size:
            raise WeightsCorrupt(
                f"{source.name} has token ids up to {largest}, but the encoder has only {vocab_size} tokens"
            )

    def __str__(self) -> str:
        return f"T5 from {self.t5_source}, CLIP from {self.clip_source}"


def find_tokenizers(
    override: Path | None,
    folders: Sequence[Path],
    t5_container: Container | None = None,
    pulled: Sequence[Path] = (),
) -> TokenizerSources:
    """Return where the tokenizers of a model come from, without reading them.

    override: the folder that the operator names, which must have both. folders: the model's own, at least one, in order
    of preference. t5_container: the file that holds T5, if it is known. pulled: the folders of pulled layouts. Raises
    `WeightsMissing` for an `override` that is no folder or lacks a tokenizer.
    """
    if override is not None:
        return _given(override)
    return TokenizerSources(folders[0], _t5_source(folders, t5_container, pulled), _clip_source([*folders, *pulled]))


def _given(folder: Path) -> TokenizerSources:
    """Return the two sources in the folder that the operator names, either in its subfolders or in itself."""
    if not folder.is_dir():
        raise WeightsMissing(f"{folder}, which --tokenizer names, is no folder")
    whole = _whole_in(folder)
    is_clip = whole is not None and _names_clip(folder / WHOLE_FILE)
    t5 = _whole_in(folder / T5_FOLDER) or (None if is_clip else whole)
    clip_ = _clip_in(folder / CLIP_FOLDER) or (whole if is_clip else _pieces_in(folder))
    if t5 is None or clip_ is None:
        missing = [] if t5 else [f"no T5 tokenizer ({T5_FOLDER}/{WHOLE_FILE})"]
        missing += [] if clip_ else [f"no CLIP tokenizer ({CLIP_FOLDER}/{VOCABULARY_FILE} with {MERGES_FILE})"]
        raise WeightsMissing(
            f"{folder}, which --tokenizer names, holds {' and '.join(missing)}; copy what is missing there, or leave "
            "--tokenizer out, since the package has both"
        )
    return TokenizerSources(folder, t5, clip_)


def _t5_source(folders: Sequence[Path], container: Container | None, pulled: Sequence[Path]) -> TokenizerSource:
    for folder in folders:
        if (found := _whole_in(folder / T5_FOLDER)) is not None:
            return found
    if isinstance(container, GGUFContainer) and has_tokenizer(container):
        return TokenizerSource(str(container.path), partial(read_gguf_tokenizer, container))
    for folder in pulled:
        if (found := _whole_in(folder / T5_FOLDER)) is not None:
            return found
    unread = [file for folder in folders if (file := folder / T5_FOLDER / SENTENCEPIECE_FILE).is_file()]
    note = f"{unread[0]} is not read without a {WHOLE_FILE} in the same folder" if unread else ""
    return _packaged(T5_FILE, packaged_t5, note)


def _clip_source(folders: Sequence[Path]) -> TokenizerSource:
    for folder in folders:
        if (found := _clip_in(folder / CLIP_FOLDER)) is not None:
            return found
    single = [
        file
        for folder in folders
        for name in (VOCABULARY_FILE, MERGES_FILE)
        if (file := folder / CLIP_FOLDER / name).is_file()
    ]
    other = {VOCABULARY_FILE: MERGES_FILE, MERGES_FILE: VOCABULARY_FILE}
    note = f"{single[0]} is not read without a {other[single[0].name]} in the same folder" if single else ""
    return _packaged(CLIP_FILE, packaged_clip, note)


def _packaged(file: str, read: Callable[[], Tokenizer], note: str) -> TokenizerSource:
    return TokenizerSource("the package", partial(read_tokenizer, str(FOLDER / file), read), note, is_packaged=True)


def _whole_in(folder: Path) -> TokenizerSource | None:
    """Return the source of a file of the `tokenizers` library in a folder."""
    file = folder / WHOLE_FILE
    if not file.is_file():
        return None
    return TokenizerSource(str(file), partial(read_tokenizer, str(file), Tokenizer.from_file, str(file)))


def _pieces_in(folder: Path) -> TokenizerSource | None:
    """Return the source of the two files of OpenAI's release of CLIP in a folder."""
    pieces = [folder / name for name in (VOCABULARY_FILE, MERGES_FILE)]
    if not all(file.is_file() for file in pieces):
        return None
    return TokenizerSource(str(folder), partial(read_tokenizer, str(folder), read_clip_tokenizer, *pieces))


def _clip_in(folder: Path) -> TokenizerSource | None:
    return _whole_in(folder) or _pieces_in(folder)


def _names_clip(file: Path) -> bool:
    """Whether a file of the `tokenizers` library has CLIP's begin token, and so is not T5's."""
    try:
        return clip.BEGIN.encode() in file.read_bytes()
    except OSError:
        return False


def _read(source: TokenizerSource) -> Tokenizer:
    """Read a tokenizer, without the padding and truncation of its file: `PromptTokenizer` pads and truncates."""
    tokenizer = source.read()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _special_id(source: TokenizerSource, tokenizer: Tokenizer, text: str) -> int:
    number = tokenizer.token_to_id(text)
    if number is None:
        raise WeightsCorrupt(f"{source.name} is not FLUX's tokenizer: it has no token {text}")
    return int(number)
