"""Builds T5's tokenizer from the header of a GGUF file, as llama.cpp's converter writes it.

The header has the pieces of the SentencePiece model with their scores and types, and its normalization, "charsmap".
Rows of the embedding without a piece follow as `[PAD<id>]`. The tokenizer gives the ids of transformers, which adds
sentinels of its own, `<extra_id_0>` to `<extra_id_99>`, in descending order behind the pieces.
Source: ggml-org/llama.cpp `convert_hf_to_gguf.py: T5Model.set_vocab`; huggingface/transformers
`convert_slow_tokenizer.py: T5Converter`.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.container import Container
from allaprima.weights.formats.gguf import GGUFContainer

_PREFIX = "tokenizer.ggml."
#: Values of `tokenizer.ggml.model` of files without a tokenizer.
_NO_MODEL = ("none", "no_vocab")
#: Types of pieces, llama.cpp's `llama_token_type`: those found in a prompt before it is split, those without a use, and
#: single bytes.
_SPECIAL, _UNUSED, _BYTE, _LAST_TYPE = (2, 3, 4), 5, 6, 6
_UNKNOWN = "<unk>"
#: The fields with the ids of these tokens, which not every file has.
_IDS = {"unknown_token_id": _UNKNOWN, "eos_token_id": "</s>", "padding_token_id": "<pad>"}
_SENTINELS = [f"<extra_id_{number}>" for number in reversed(range(100))]
_WHOLE_TOKENS = {*_IDS.values(), *_SENTINELS}
_PADDING = re.compile(r"\[PAD\d+\]")
Piece = tuple[str, float]


def has_tokenizer(container: Container | None) -> bool:
    """Whether a file is a GGUF file with a tokenizer, which may be damaged."""
    if not isinstance(container, GGUFContainer):
        return False
    model = container.metadata.get(f"{_PREFIX}model")
    return f"{_PREFIX}tokens" in container.arrays if model is None else model not in _NO_MODEL


def read_gguf_tokenizer(container: GGUFContainer) -> Tokenizer:
    """Build the tokenizer of a T5 in a GGUF file. Raises `WeightsCorrupt` naming the file and what is wrong with it."""
    try:
        return _build(_Fields(container))
    # The library raises plain `Exception` for pieces and charsmaps that it can't read.
    except Exception as exc:
        reason = str(exc).removeprefix(f"{container.path}: ")
        raise WeightsCorrupt(
            f"{container.path} has a tokenizer that can't be used: {reason}; give the folder of FLUX's tokenizers with "
            "--tokenizer"
        ) from exc


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of the tokenizer in a GGUF header. All methods raise errors naming the field that is wrong."""

    container: GGUFContainer

    def text(self, name: str) -> str | None:
        return self.container.metadata.get(_PREFIX + name)

    def is_set(self, name: str) -> bool:
        """Whether a flag is set, as both of T5's are; a header may leave them out."""
        return self.text(name) != "false"

    def tokens(self) -> list[str]:
        tokens = self._array("tokens")
        if not isinstance(tokens, list) or len(set(tokens)) != len(tokens):
            raise ValueError(f"{_PREFIX}tokens is no list of different tokens")
        return tokens

    def numbers(self, name: str) -> NDArray[Any]:
        found = self._array(name)
        if isinstance(found, list):
            raise TypeError(f"{_PREFIX}{name} is no array of numbers")
        return found

    def scores(self, count: int) -> list[float]:
        scores = self.numbers("scores")
        if len(scores) != count or not np.isfinite(scores).all():
            raise ValueError(f"{_PREFIX}scores has not one finite score for each of {count} tokens")
        return [float(score) for score in scores]

    def types(self, count: int) -> list[int]:
        """Return the types of the tokens; all are plain in a header without types."""
        if self.container.array(f"{_PREFIX}token_type") is None:
            return [1] * count
        types = self.numbers("token_type")
        if len(types) != count or (count and not 0 <= types.min() <= types.max() <= _LAST_TYPE):
            raise ValueError(f"{_PREFIX}token_type has not one known type for each of {count} tokens")
        return [int(number) for number in types]

    def charsmap(self) -> bytes:
        """Return the normalization, which some files store as signed bytes, or as 32-bit numbers."""
        numbers = self.numbers("precompiled_charsmap")
        if numbers.dtype == np.int8:
            numbers = numbers.view(np.uint8)
        if not numbers.size or numbers.min() < 0 or numbers.max() > 255 or numbers.dtype.kind not in "iu":
            raise ValueError(f"{_PREFIX}precompiled_charsmap is empty, or has values that are no bytes")
        data = numbers.astype(np.uint8).tobytes()
        if not _is_sound_charsmap(data):
            raise ValueError(f"{_PREFIX}precompiled_charsmap is damaged")
        return data

    def _array(self, name: str) -> NDArray[Any] | list[str]:
        if (found := self.container.array(_PREFIX + name)) is None:
            raise ValueError(f"{_PREFIX}{name} is missing")
        return found


def _build(fields: _Fields) -> Tokenizer:
    if (model := fields.text("model")) is None:
        raise ValueError(f"{_PREFIX}model is missing")
    if model != "t5":
        raise ValueError(f"{_PREFIX}model is {model[:40]!r}, not 't5'")
    pieces, special, has_bytes = _pieces(fields)
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    for name, token in _IDS.items():
        if token not in ids:
            raise ValueError(f"{_PREFIX}tokens has no token {token}")
        if fields.text(name) not in (None, str(ids[token])):
            raise ValueError(f"{_PREFIX}{name} is not the id of {token}")
    tokenizer = Tokenizer(models.Unigram(pieces, ids[_UNKNOWN], has_bytes))
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(fields.charsmap())]
    if fields.is_set("remove_extra_whitespaces"):
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme: Literal["first", "never"] = "first" if fields.is_set("add_space_prefix") else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def _pieces(fields: _Fields) -> tuple[list[Piece], list[str], bool]:
    """Return all pieces, those which are found in a prompt before it is split, and whether some are bytes."""
    tokens = fields.tokens()
    scores, types = fields.scores(len(tokens)), fields.types(len(tokens))
    kept = len(tokens)
    while kept and (types[kept - 1] == _UNUSED or _PADDING.fullmatch(tokens[kept - 1])):
        kept -= 1
    special = [
        token for token, kind in zip(tokens[:kept], types, strict=False) if kind in _SPECIAL or token in _WHOLE_TOKENS
    ]
    # Special tokens have no score in T5's model, and the lowest score is that of unknown characters.
    without_score = set(special)
    pieces = [
        (token, 0.0 if token in without_score else score) for token, score in zip(tokens[:kept], scores, strict=False)
    ]
    if len(tokens) - kept >= len(_SENTINELS) and without_score.isdisjoint(_SENTINELS):
        special += _SENTINELS
        pieces += [(token, 0.0) for token in _SENTINELS]
    return pieces, special, _BYTE in types[:kept]


def _is_sound_charsmap(data: bytes) -> bool:
    """Whether every look-up in a charsmap stays inside of it; the `tokenizers` library does not check that.

    A charsmap is the size of a trie in bytes, the trie, and the replacements, each of which ends with a zero byte. A
    unit of the trie, a 32-bit number, is a node with the offset of its children, or the position of a replacement.
    Source: google/sentencepiece `normalizer.cc`; s-yata/darts-clone `darts.h: DoubleArrayUnit`.
    """
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or not 0 < size <= len(data) - 4:
        return False
    units = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64)
    replacements = np.frombuffer(data, np.uint8, offset=4 + size)
    nodes = np.flatnonzero(units < 2**31)
    values = units[nodes]
    children = nodes ^ ((values >> 10) << ((values >> 6) & 8))
    if not replacements.size or replacements[-1] or (children | 255).max(initial=0) >= len(units):
        return False
    begins = units[children[values & 256 != 0]] & (2**31 - 1)
    return bool(begins.max(initial=0) < len(replacements) and not replacements[begins[begins > 0] - 1].any())
