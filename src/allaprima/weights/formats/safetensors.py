"""Reads safetensors files.

Source: huggingface/safetensors `README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.ending import Span, check_ending
from allaprima.weights.formats.recognise import MAX_HEADER, check_names
from allaprima.weights.json_object import parse_object

if TYPE_CHECKING:
    from torch import Tensor

#: torch's names of the supported dtypes, by their names in the format. Tensors of other dtypes can't be read.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
#: Largest header in bytes that is parsed, which takes several times its size in memory. Headers of models have some
#: hundred kilobytes, and those of LoRAs, with a description of their training, some megabytes.
_HEADER_LIMIT = 16 * 2**20


class SafetensorsContainer:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` when the file is not safetensors, is truncated or has an invalid header."""
        self.path = path
        self.files = (path,)
        _check_header_size(path)
        try:
            # The library validates the header. With the framework "pt" it would map the whole file.
            with safe_open(path, "np") as opened:
                self.metadata: Mapping[str, str] = opened.metadata() or {}
            self._data_start, self._entries = _read_header(path)
        except (SafetensorError, OSError, ValueError, LookupError, OverflowError, RecursionError) as exc:
            raise WeightsCorrupt(_problem(path) or f"{path} is not a readable safetensors file: {exc}") from exc
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(entry["shape"]) for name, entry in self._entries.items()
        }
        self.dtypes: Mapping[str, str] = {name: entry["dtype"] for name, entry in self._entries.items()}

    def check_ending(self) -> None:
        """Check that the file does not end in zeros. Raises `WeightsCorrupt` naming file and tensor."""
        start = self._data_start
        spans = [(name, *entry["data_offsets"], len(entry["shape"])) for name, entry in self._entries.items()]
        check_ending(self.path, [Span(name, start + begin, start + end, axes) for name, begin, end, axes in spans])

    def read(self, name: str) -> Tensor:
        """Return one tensor in the dtype of the file. It is read, not memory-mapped, so freeing it frees the memory.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {entry['dtype']}, which allaprima can't read"
            )
        try:
            data = np.fromfile(self.path, np.uint8, end - begin, offset=self._data_start + begin)
        except OSError as exc:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} can't be read: {exc}") from exc
        if data.size != end - begin:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} is truncated")
        import torch

        return torch.from_numpy(data).view(getattr(torch, dtype)).reshape(entry["shape"])


def _check_header_size(path: Path) -> None:
    """Raise `WeightsCorrupt` for a file with a whole header that is too large to be parsed."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            is_whole = file.read(1) == b"{" and 8 + length <= path.stat().st_size
    except OSError as exc:
        raise WeightsCorrupt(f"{path} can't be read: {exc.strerror}") from exc
    if is_whole and length > _HEADER_LIMIT:
        raise WeightsCorrupt(
            f"{path} has a header of {length} bytes, of which at most {_HEADER_LIMIT} are read; "
            "it holds no model of FLUX"
        )


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the offset of the tensor data, and the header entries of the tensors by name, from a valid file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = parse_object(file.read(length))
    entries.pop("__metadata__", None)
    check_names(path, entries)
    return 8 + length, entries


def _problem(path: Path) -> str:
    """Return the error message for a file that was cut short; empty for a file with another problem."""
    again = "the download broke off; download it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or file.read(1) not in (b"", b"{") or length > MAX_HEADER:
                return f"{path} is cut short: it has {size} bytes; {again}" if size < 8 else ""
            if 8 + length > size:
                return f"{path} lacks {8 + length - size} of the {8 + length} bytes of its header; {again}"
            file.seek(8)
            entries = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    # The sizes of a file that was not cut short say nothing about its problem. No file has 2^60 bytes.
    if not isinstance(whole, int) or not size < whole < 2**60:
        return ""
    return f"{path} lacks {whole - size} of its {whole} bytes; {again}"
