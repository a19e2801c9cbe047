"""Files of named tensors, told apart by what is in them and never by their name: safetensors and GGUF.

A container knows names and shapes at once and reads one tensor at a time, from the disk. Numbers that are packed
in blocks come out as float32, all others as they are stored. Formats that run code when they are opened are refused.

Sources: huggingface/safetensors `README.md`; ggml-org/ggml `docs/gguf.md`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsUnsafe

#: Endings of files that may hold tensors; what is in them decides.
ENDINGS = (".safetensors", ".sft", ".gguf")
#: What files that Python unpickles begin with: a zip archive (`torch.save`, `.pt2`), or pickle protocols 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_GGUF = b"GGUF"
#: No header of a FLUX file comes near this; a longer one is a lie.
_GGUF_HEADER_LIMIT = 4 * 2**20


class Container(Protocol):
    """An open file of named tensors."""

    @property
    def path(self) -> Path:
        """Where the file is."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it reads: `path`, or those that an index at `path` names."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the header says beside the tensors."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, outermost axis first."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU. Raises `WeightsCorrupt` naming file and tensor."""


def open_container(path: Path) -> Container:
    """Open a file of tensors, whatever it is called.

    Raises `WeightsMissing` where there is none, `WeightsUnsafe` for formats that run code, and `WeightsCorrupt` for a
    file that is neither safetensors nor GGUF, is cut short, or whose header can't be true.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as exc:
        raise WeightsMissing(f"{path} can't be read: {exc.strerror}") from exc
    if begin.startswith(_PICKLES):
        raise WeightsUnsafe(
            f"{path} is a pickle (.pt, .ckpt, .bin or .pt2): opening one runs whatever code is in it; "
            "use the model's safetensors or GGUF files"
        )
    return GGUFContainer(path) if begin == _GGUF else SafetensorsContainer(path)


class SafetensorsContainer:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` when the file is not safetensors, is cut short or has a header that can't be true."""
        self.path = path
        self.files = (path,)
        try:
            # The library proves the header; as numpy's, since for torch it asks the system for the whole file's size.
            with safe_open(path, "np") as opened:
                self.metadata: Mapping[str, str] = opened.metadata() or {}
            self._start, self._entries = _read_header(path)
        except (SafetensorError, OSError, ValueError, LookupError, OverflowError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(entry["shape"]) for name, entry in self._entries.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor as stored. It is read rather than mapped, so that the file takes no memory beside it."""
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} is stored as {entry['dtype']}, which can't be read")
        try:
            data = np.fromfile(self.path, np.uint8, end - begin, offset=self._start + begin)
        except OSError as exc:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} can't be read: {exc}") from exc
        if data.size != end - begin:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} is cut short")
        return torch.from_numpy(data).view(dtype).reshape(entry["shape"])


#: The format's names of numbers that weights may be stored in.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where a sound file's numbers begin, and its tensors' entries by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries: dict[str, Any] = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return 8 + length, entries


class ShardedContainer:
    """Files that together hold one part, as the index beside them says."""

    def __init__(self, path: Path, shards: Sequence[Container]) -> None:
        """path: the index. Raises `WeightsCorrupt` when two shards hold one tensor."""
        self.path = path
        self.files = tuple(file for shard in shards for file in shard.files)
        self.metadata: Mapping[str, str] = {name: told for shard in shards for name, told in shard.metadata.items()}
        self._homes: dict[str, Container] = {}
        for shard in shards:
            if twice := self._homes.keys() & shard.shapes.keys():
                raise WeightsCorrupt(f"{path}: more than one shard holds the tensor {min(twice)}")
            self._homes |= dict.fromkeys(shard.shapes, shard)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: home.shapes[name] for name, home in self._homes.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor from the shard that has it."""
        return self._homes[name].read(name)


class GGUFContainer:
    """A GGUF file, of any block type that the `gguf` library can unpack."""

    def __init__(self, path: Path) -> None:
        """Raises `WeightsCorrupt` when the file is cut short or its header can't be true."""
        self.path = path
        self.files = (path,)
        try:
            reader = _BoundedReader(path)
            self._tensors = {tensor.name: _Packed.of(tensor) for tensor in reader.tensors}
        # The library checks little of what it reads, so that nonsense ends it in many ways.
        except (ValueError, LookupError, OSError, OverflowError, TypeError, ArithmeticError, RecursionError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable GGUF file: {exc}") from exc
        #: Nothing that a GGUF file says beside its tensors is needed to read them.
        self.metadata: Mapping[str, str] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {name: packed.shape for name, packed in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor: float16, float32 or bfloat16 as stored, all else unpacked to float32."""
        packed = self._tensors[name]
        # Mapped anew each time: the pages of what was read are given back with it.
        data = np.memmap(self.path, np.uint8, "r", packed.offset, packed.nbytes)
        match packed.kind:
            case GGMLQuantizationType.F32:
                return torch.from_numpy(np.array(data)).view(torch.float32).reshape(packed.shape)
            case GGMLQuantizationType.F16:
                return torch.from_numpy(np.array(data)).view(torch.float16).reshape(packed.shape)
            case GGMLQuantizationType.BF16:
                return torch.from_numpy(np.array(data)).view(torch.bfloat16).reshape(packed.shape)
        try:
            rows = data.reshape(*packed.shape[:-1], -1)
            return torch.from_numpy(dequantize(rows, packed.kind)).reshape(packed.shape)
        except (NotImplementedError, ValueError) as exc:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {packed.kind.name}, which can't be unpacked"
            ) from exc


@dataclass(frozen=True, slots=True)
class _Packed:
    """Where a GGUF file holds a tensor, and how."""

    offset: int
    nbytes: int
    kind: GGMLQuantizationType
    #: Outermost axis first.
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: ReaderTensor) -> "_Packed":
        """Return what the library's reader says of a tensor."""
        shape = tuple(int(side) for side in reversed(tensor.shape.tolist()))
        return cls(int(tensor.data_offset), int(tensor.n_bytes), tensor.tensor_type, shape)


class _BoundedReader(GGUFReader):
    """The library's reader, which would take a header's word for any number, kept inside the file."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        in_header = not hasattr(self, "data_offset")
        if end > (min(len(self.data), _GGUF_HEADER_LIMIT) if in_header else len(self.data)):
            raise ValueError(f"it is cut short, or its header lies: {end} bytes wanted of {len(self.data)}")
        return super()._get(offset, dtype, count, override_order)
