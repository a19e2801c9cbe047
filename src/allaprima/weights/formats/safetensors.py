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


class SafetensorsContainer:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` when the file is not safetensors, is truncated or has an invalid header."""
        self.path = path
        self.files = (path,)
        try:
            # The library validates the header. With the framework "pt" it would map the whole file.
            with safe_open(path, "np") as opened:
                self.metadata: Mapping[str, str] = opened.metadata() or {}
            self._data_start, self._entries = _read_header(path)
        except (SafetensorError, OSError, ValueError, LookupError, OverflowError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(entry["shape"]) for name, entry in self._entries.items()
        }
        self.dtypes: Mapping[str, str] = {name: entry["dtype"] for name, entry in self._entries.items()}

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


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the offset of the tensor data, and the header entries of the tensors by name, from a valid file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries: dict[str, Any] = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return 8 + length, entries
