"""Reads GGUF files, with the `gguf` library's reader confined to the bounds of the file.

Source: ggml-org/ggml `docs/gguf.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray
from torch import Tensor

from allaprima.errors import WeightsCorrupt

#: The first bytes of every GGUF file.
MAGIC = b"GGUF"
#: Most bytes of a header; the header of a FLUX file is far smaller.
_HEADER_LIMIT = 4 * 2**20
_PLAIN_DTYPES = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


class GGUFContainer:
    """A GGUF file, of any block type that the `gguf` library can dequantize."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` when the file is truncated or has an invalid header."""
        self.path = path
        self.files = (path,)
        try:
            reader = _BoundedReader(path)
            self._tensors = {tensor.name: _TensorEntry.of(tensor) for tensor in reader.tensors}
        # The library validates little of what it reads, so that an invalid header makes it raise any of these.
        except (ValueError, LookupError, OSError, OverflowError, TypeError, ArithmeticError, RecursionError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable GGUF file: {exc}") from exc
        #: Reading the tensors needs no metadata of a GGUF file.
        self.metadata: Mapping[str, str] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {name: entry.shape for name, entry in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor: float16, float32 or bfloat16 as stored, all other types dequantized to float32.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        entry = self._tensors[name]
        # A new mapping for each tensor: its pages are released when the tensor has been read.
        data = np.memmap(self.path, np.uint8, "r", entry.offset, entry.nbytes)
        if (dtype := _PLAIN_DTYPES.get(entry.kind)) is not None:
            return torch.from_numpy(np.array(data)).view(dtype).reshape(entry.shape)
        try:
            rows = data.reshape(*entry.shape[:-1], -1)
            return torch.from_numpy(dequantize(rows, entry.kind)).reshape(entry.shape)
        except (NotImplementedError, ValueError) as exc:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {entry.kind.name}, which can't be unpacked"
            ) from exc


@dataclass(frozen=True, slots=True)
class _TensorEntry:
    """Where a GGUF file stores a tensor, and how."""

    offset: int
    nbytes: int
    kind: GGMLQuantizationType
    #: Outermost axis first.
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: ReaderTensor) -> "_TensorEntry":
        """Return the entry of a tensor that the library's reader has found."""
        shape = tuple(int(side) for side in reversed(tensor.shape.tolist()))
        return cls(int(tensor.data_offset), int(tensor.n_bytes), tensor.tensor_type, shape)


class _BoundedReader(GGUFReader):
    """The library's reader, which trusts the sizes in a header, with a bounds check before each read.

    Overrides the library's private `_get`, through which it reads everything; `tests/weights/formats/test_gguf.py`
    fails where a release of `gguf` reads by other means.
    """

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        in_header = not hasattr(self, "data_offset")
        if end > (min(len(self.data), _HEADER_LIMIT) if in_header else len(self.data)):
            raise ValueError(f"it is truncated or its header is invalid: {end} bytes are needed of {len(self.data)}")
        return super()._get(offset, dtype, count, override_order)
