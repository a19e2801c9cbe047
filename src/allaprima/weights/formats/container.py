"""A file of named tensors, and how to open one by its content rather than its name.

Opening reads names and shapes; a tensor is read from disk when it is asked for. Block-quantized numbers are returned
as float32, all others as stored. Formats that execute code when they are opened are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from allaprima.errors import WeightsMissing, WeightsUnsafe
from allaprima.weights.formats.gguf import MAGIC, GGUFContainer
from allaprima.weights.formats.safetensors import SafetensorsContainer

#: First bytes of files that Python unpickles: a zip archive (`torch.save`, `.pt2`), or pickle protocols 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Container(Protocol):
    """An open file of named tensors."""

    @property
    def path(self) -> Path:
        """The file's path."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read: `path`, or the files that an index at `path` names."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value pairs of the header that are not tensors."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, outermost axis first."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU. Raises `WeightsCorrupt` naming file and tensor."""


def open_container(path: Path) -> Container:
    """Open a safetensors or GGUF file, whatever its name.

    Raises `WeightsMissing` if the file can't be read, `WeightsUnsafe` for formats that execute code, and
    `WeightsCorrupt` for a file that is neither safetensors nor GGUF, is truncated or has an invalid header.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise WeightsMissing(f"{path} can't be read: {exc.strerror}") from exc
    if magic.startswith(_PICKLES):
        raise WeightsUnsafe(
            f"{path} is a pickle (.pt, .ckpt, .bin or .pt2): opening it runs whatever code it contains; "
            "use the model's safetensors or GGUF files"
        )
    return GGUFContainer(path) if magic == MAGIC else SafetensorsContainer(path)
