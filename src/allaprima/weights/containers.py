"""Files of named tensors, told apart by what is in them and never by their name: safetensors and GGUF.

A container knows names and shapes at once and reads one tensor at a time, mapped from the disk. Numbers that are packed
in blocks come out as float32, all others as they are stored. Formats that run code when they are opened are refused.

Sources: huggingface/safetensors `README.md`; ggml-org/ggml `docs/gguf.md`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
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
        try:
            # The library has no annotations.
            self._file = cast("Any", safe_open(path, "pt"))
            self.metadata: Mapping[str, str] = self._file.metadata() or {}
            self.shapes: Mapping[str, tuple[int, ...]] = {
                name: tuple(self._file.get_slice(name).get_shape())
                for name in self._file.keys()  # noqa: SIM118
            }
        except (SafetensorError, OSError, ValueError, OverflowError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc

    def read(self, name: str) -> Tensor:
        """Return one tensor, mapped from the file."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError) as exc:
            raise WeightsCorrupt(f"{self.path}: the tensor {name} can't be read: {exc}") from exc
        return tensor


class ShardedContainer:
    """Files that together hold one part, as the index beside them says."""

    def __init__(self, path: Path, shards: Sequence[Container]) -> None:
        """path: the index. Raises `WeightsCorrupt` when two shards hold one tensor."""
        self.path = path
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
        try:
            reader = _BoundedReader(path)
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        # The library checks little of what it reads, so that nonsense ends it in many ways.
        except (ValueError, LookupError, OSError, OverflowError, TypeError, ArithmeticError, RecursionError) as exc:
            raise WeightsCorrupt(f"{path} is not a readable GGUF file: {exc}") from exc
        #: Nothing that a GGUF file says beside its tensors is needed to read them.
        self.metadata: Mapping[str, str] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(int(side) for side in reversed(tensor.shape.tolist())) for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor: float16, float32 or bfloat16 as stored, all else unpacked to float32."""
        packed, shape = self._tensors[name], self.shapes[name]
        data: NDArray[Any] = packed.data
        match packed.tensor_type:
            case GGMLQuantizationType.F32 | GGMLQuantizationType.F16:
                return torch.from_numpy(np.array(data)).reshape(shape)
            case GGMLQuantizationType.BF16:
                return torch.from_numpy(np.array(data).reshape(-1)).view(torch.bfloat16).reshape(shape)
        try:
            return torch.from_numpy(dequantize(data, packed.tensor_type)).reshape(shape)
        except (NotImplementedError, ValueError) as exc:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name} is stored as {packed.tensor_type.name}, which can't be unpacked"
            ) from exc


class _BoundedReader(GGUFReader):
    """The library's reader, which would take a header's word for any number, kept inside the file."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        in_header = not hasattr(self, "data_offset")
        if end > (min(len(self.data), _GGUF_HEADER_LIMIT) if in_header else len(self.data)):
            raise ValueError(f"it is cut short, or its header lies: {end} bytes wanted of {len(self.data)}")
        return super()._get(offset, dtype, count, override_order)
