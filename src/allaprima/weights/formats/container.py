"""The interface of a file of named tensors. The content of a file, not its name, decides its format.

Opening a file reads names and shapes; `Container.read` imports torch and reads a tensor from the disk. Block-quantized
tensors are returned in float32, all others in the dtype of the file. Formats that execute code when a file is opened
are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from allaprima.errors import WeightsMissing
from allaprima.weights.formats.gguf import GGUFContainer
from allaprima.weights.formats.gguf_header import MAGIC
from allaprima.weights.formats.recognise import HEAD, is_safetensors, refusal
from allaprima.weights.formats.safetensors import SafetensorsContainer

if TYPE_CHECKING:
    from torch import Tensor


class Container(Protocol):
    """An open file of named tensors."""

    @property
    def path(self) -> Path:
        """The file's path."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files with tensors: `path`, or the shards if `path` is an index."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's key-value pairs other than tensors."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of all tensors by name, outermost axis first."""

    @property
    def dtypes(self) -> Mapping[str, str]:
        """The stored number formats of all tensors by name, as the file format names them: BF16, U8, Q4_K."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU. Raises `WeightsCorrupt` naming file and tensor."""

    def check_ending(self) -> None:
        """Check that no file ends in zeros. Raises `WeightsCorrupt` naming file and tensor."""


def is_weights(path: Path) -> bool:
    """Whether a file begins like safetensors or GGUF. Raises `WeightsMissing` if it can't be read."""
    head = _head(path)
    return head.startswith(MAGIC) or is_safetensors(head)


def open_container(path: Path) -> Container:
    """Open a safetensors or GGUF file of any name.

    Raises `WeightsMissing` if the file can't be read, `WeightsUnsafe` for a format that executes code, and
    `WeightsCorrupt` for a file that is neither safetensors nor GGUF, is truncated, or has an invalid header.
    """
    head = _head(path)
    if head.startswith(MAGIC):
        return GGUFContainer(path)
    if not is_safetensors(head) and (error := refusal(path, head)) is not None:
        raise error
    return SafetensorsContainer(path)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as exc:
        raise WeightsMissing(f"{path} can't be read: {exc.strerror}") from exc
