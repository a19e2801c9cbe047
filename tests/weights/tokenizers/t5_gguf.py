"""Writes the tokenizer fields of llama.cpp's converter for T5 into a GGUF file, with the package's vocabulary."""

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from allaprima.weights.tokenizers.packaged import FOLDER, T5_FILE

PREFIX = "tokenizer.ggml."
#: The pieces of T5's SentencePiece model, without the sentinels of transformers.
PIECES = 32_000
ROWS = 32_128


def official() -> dict[str, Any]:
    """Return the package's tokenizer.json of T5."""
    return json.loads(gzip.decompress((FOLDER / T5_FILE).read_bytes()))


@dataclass
class T5Fields:
    """The fields, to be changed by a test."""

    model: str | None = "t5"
    tokens: list[str] | None = field(default_factory=list)
    scores: list[float] | None = field(default_factory=list)
    types: list[int] | None = field(default_factory=list)
    #: bytes are written as U8, a list as 32-bit numbers, an array in its own dtype.
    charsmap: bytes | list[int] | np.ndarray | None = b""
    flags: dict[str, bool] = field(default_factory=lambda: {"add_space_prefix": True, "remove_extra_whitespaces": True})
    ids: dict[str, int] = field(
        default_factory=lambda: {"unknown_token_id": 2, "eos_token_id": 1, "padding_token_id": 0}
    )

    def write(self, writer: gguf.GGUFWriter) -> None:
        if self.model is not None:
            writer.add_string(f"{PREFIX}model", self.model)
        writer.add_string(f"{PREFIX}pre", "default")
        for name, values in (("tokens", self.tokens), ("scores", self.scores), ("token_type", self.types)):
            if values is not None:
                writer.add_array(PREFIX + name, values)
        if isinstance(self.charsmap, np.ndarray):
            kind = gguf.GGUFValueType[self.charsmap.dtype.name.upper()]
            writer.add_key_value(
                f"{PREFIX}precompiled_charsmap", self.charsmap.tolist(), gguf.GGUFValueType.ARRAY, sub_type=kind
            )
        elif self.charsmap is not None:
            writer.add_array(f"{PREFIX}precompiled_charsmap", self.charsmap)
        for name, value in self.flags.items():
            writer.add_bool(PREFIX + name, value)
        for name, number in self.ids.items():
            writer.add_uint32(PREFIX + name, number)


def t5_fields(rows: int = ROWS, count: int = PIECES) -> T5Fields:
    """Return the fields that llama.cpp writes for the first pieces of T5 v1.1.

    rows: rows of the embedding. count: number of pieces.
    """
    tokenizer = official()
    pieces = tokenizer["model"]["vocab"][:count]
    unused = rows - count
    return T5Fields(
        tokens=[text for text, _ in pieces] + [f"[PAD{number}]" for number in range(count, rows)],
        scores=[score for _, score in pieces] + [-10_000.0] * unused,
        types=[3, 3, 2] + [1] * (count - 3) + [5] * unused,
        charsmap=base64.b64decode(tokenizer["normalizer"]["normalizers"][0]["precompiled_charsmap"]),
    )


def write_t5_gguf(path: Path, fields: T5Fields | None, change: Callable[[gguf.GGUFWriter], object] = id) -> None:
    """Write a GGUF file with one tensor and, if they are given, the fields of a tokenizer."""
    writer = gguf.GGUFWriter(path, "t5encoder")
    if fields is not None:
        fields.write(writer)
    change(writer)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
