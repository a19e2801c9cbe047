"""Reads GGUF files. The blocks of quantized tensors are dequantized with the `gguf` library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.formats.ending import Span, check_ending
from allaprima.weights.formats.gguf_header import read_array, read_header
from allaprima.weights.formats.recognise import check_names

if TYPE_CHECKING:
    from torch import Tensor

#: torch's names of the dtypes of tensors that are not block-quantized.
_PLAIN_DTYPES = {
    GGMLQuantizationType.F32: "float32",
    GGMLQuantizationType.F16: "float16",
    GGMLQuantizationType.BF16: "bfloat16",
}


class GGUFContainer:
    """A GGUF file, of any block type that the `gguf` library can dequantize."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` naming the file when it is cut short, or has a header that can't be read."""
        self.path = path
        self.files = (path,)
        try:
            header = read_header(path)
        except OSError as exc:
            raise WeightsMissing(f"{path} can't be read: {exc.strerror}") from exc
        self._arrays = header.arrays
        self._tensors = header.tensors
        #: The header's numbers and strings as text ("true" and "false" for booleans), without strings of over 1 MiB.
        self.metadata: Mapping[str, str] = header.metadata
        #: The names of the header's arrays.
        self.arrays: frozenset[str] = frozenset(header.arrays)
        check_names(path, self._tensors)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: entry.shape for name, entry in self._tensors.items()}
        self.dtypes: Mapping[str, str] = {name: entry.kind.name for name, entry in self._tensors.items()}

    def array(self, name: str) -> NDArray[Any] | list[str] | None:
        """Return an array of the header: numbers as an array, strings as a list. None if the header has no such array.

        Raises `WeightsCorrupt` naming file and array for strings that are not UTF-8, and for an array of arrays.
        """
        if (entry := self._arrays.get(name)) is None:
            return None
        try:
            return read_array(self.path, entry)
        except ValueError as exc:
            raise WeightsCorrupt(f"{self.path}: the array {name} can't be read: {exc}") from exc

    def check_ending(self) -> None:
        """Check that the file does not end in zeros. Raises `WeightsCorrupt` naming file and tensor."""
        entries = self._tensors.items()
        check_ending(
            self.path, [Span(name, one.offset, one.offset + one.nbytes, len(one.shape)) for name, one in entries]
        )

    def read(self, name: str) -> Tensor:
        """Return one tensor: float16, float32 or bfloat16 as stored, all other types dequantized to float32.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        import torch

        entry = self._tensors[name]
        # Each tensor is read through its own mapping, whose pages are released with it.
        data = (
            np.memmap(self.path, np.uint8, "r", entry.offset, entry.nbytes) if entry.nbytes else np.empty(0, np.uint8)
        )
        if (dtype := _PLAIN_DTYPES.get(entry.kind)) is not None:
            return torch.from_numpy(np.array(data)).view(getattr(torch, dtype)).reshape(entry.shape)
        try:
            rows = data.reshape(*entry.shape[:-1], -1)
            return torch.from_numpy(dequantize(rows, entry.kind)).reshape(entry.shape)
        except (NotImplementedError, ValueError) as exc:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {entry.kind.name}, which allaprima can't read"
            ) from exc
