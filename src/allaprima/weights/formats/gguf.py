"""Reads GGUF files with the `gguf` library, whose reader is extended by bounds checks.

Source: ggml-org/ggml `docs/gguf.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray

from allaprima.errors import WeightsCorrupt

if TYPE_CHECKING:
    from torch import Tensor

#: The first bytes of every GGUF file.
MAGIC = b"GGUF"
#: Largest accepted header in bytes; the header of a FLUX file is far smaller.
_HEADER_LIMIT = 4 * 2**20
#: torch's names of the dtypes of tensors that are not block-quantized.
_PLAIN_DTYPES = {
    GGMLQuantizationType.F32: "float32",
    GGMLQuantizationType.F16: "float16",
    GGMLQuantizationType.BF16: "bfloat16",
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
        # The library validates little, so an invalid header can make it raise any of these exceptions.
        except (ValueError, LookupError, OSError, OverflowError, TypeError, ArithmeticError, RecursionError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable GGUF file: {exc}") from exc
        #: Empty: reading the tensors needs no metadata of a GGUF file.
        self.metadata: Mapping[str, str] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {name: entry.shape for name, entry in self._tensors.items()}
        self.dtypes: Mapping[str, str] = {name: entry.kind.name for name, entry in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor: float16, float32 or bfloat16 as stored, all other types dequantized to float32.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        import torch

        entry = self._tensors[name]
        # Each tensor is read through its own mapping, whose pages are released with it.
        data = np.memmap(self.path, np.uint8, "r", entry.offset, entry.nbytes)
        if (dtype := _PLAIN_DTYPES.get(entry.kind)) is not None:
            return torch.from_numpy(np.array(data)).view(getattr(torch, dtype)).reshape(entry.shape)
        try:
            rows = data.reshape(*entry.shape[:-1], -1)
            return torch.from_numpy(dequantize(rows, entry.kind)).reshape(entry.shape)
        except (NotImplementedError, ValueError) as exc:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {entry.kind.name}, which allaprima can't read"
            ) from exc


@dataclass(frozen=True, slots=True)
class _TensorEntry:
    """Position, type and shape of a tensor in a GGUF file."""

    offset: int
    nbytes: int
    kind: GGMLQuantizationType
    #: Outermost axis first.
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: ReaderTensor) -> _TensorEntry:
        """Return the entry of a tensor listed by the library's reader, which has the innermost axis first."""
        shape = tuple(int(side) for side in reversed(tensor.shape.tolist()))
        return cls(int(tensor.data_offset), int(tensor.n_bytes), tensor.tensor_type, shape)


class _BoundedReader(GGUFReader):
    """The library's reader with a bounds check before each read. The library itself trusts the sizes in a header.

    It overrides the library's private method `_get`, through which the library does all its reads. If a release of
    `gguf` reads in another way, `tests/weights/formats/test_gguf.py` fails.
    """

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        in_header = not hasattr(self, "data_offset")
        if end > (min(len(self.data), _HEADER_LIMIT) if in_header else len(self.data)):
            raise ValueError(
                f"the file is truncated or its header is invalid: {end} bytes are needed, and it has {len(self.data)}"
            )
        return super()._get(offset, dtype, count, override_order)
