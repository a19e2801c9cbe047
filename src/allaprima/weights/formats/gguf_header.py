"""Parses the header of a GGUF file: its fields, and the position, type and shape of its tensors.

The reader of the `gguf` library takes seconds for a header with a vocabulary, since it parses arrays element by
element, and it trusts the lengths in a header. This parser passes over arrays, which are decoded when they are asked
for, and checks every length against the file's size. Source: ggml-org/ggml `docs/gguf.md`.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from allaprima.errors import WeightsCorrupt

#: The first bytes of every GGUF file.
MAGIC = b"GGUF"
#: Versions that are read. Version 3 added big-endian files; little-endian files of both versions have the same layout.
_VERSIONS = (2, 3)
#: Largest accepted header in bytes; those of language models, which have larger vocabularies than T5, are 6 to 20 MB.
HEADER_LIMIT = 64 * 2**20
#: Most fields and most tensors of a header, most bytes of a name, and most axes of a tensor.
_MAX_ENTRIES, _MAX_NAME, _MAX_AXES = 65_536, 1024, 8
#: Longest string that is decoded into the metadata, and the most of all of them, in bytes. Longer ones are no
#: descriptions: some files have a whole tokenizer.json in a string.
_MAX_STRING, _MAX_STRINGS = 2**20, 16 * 2**20
_MAX_NESTING = 4
_DEFAULT_ALIGNMENT = 32
_SCALARS: Mapping[GGUFValueType, str] = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "|b1",
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
#: Names of the files that llama.cpp's gguf-split writes.
_PART_NAME = re.compile(r"(?P<model>.+)-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Position, type and shape of a tensor in a GGUF file."""

    #: From the start of the file, in bytes.
    offset: int
    nbytes: int
    kind: GGMLQuantizationType
    #: Outermost axis first.
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """Position of an array of numbers or strings in a header."""

    #: Of the first element, from the start of the file, in bytes.
    offset: int
    nbytes: int
    count: int
    kind: GGUFValueType


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The content of a header."""

    #: Numbers and strings as text, by field: "true" and "false" for booleans. Without strings of over 1 MiB.
    metadata: Mapping[str, str]
    #: Arrays, by field.
    arrays: Mapping[str, ArrayEntry]
    tensors: Mapping[str, TensorEntry]


def read_header(path: Path) -> GGUFHeader:
    """Read the header of a GGUF file, without its arrays.

    Raises `WeightsCorrupt` naming the file if it is cut short, has a damaged header or one of more than 64 MiB, has
    another version or byte order, or is a part of a model that gguf-split has split. Memory use is small for any file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Parser(path, data).header()


def read_array(path: Path, entry: ArrayEntry) -> NDArray[Any] | list[str]:
    """Return an array of a header: numbers as an array, strings as a list.

    Raises `UnicodeDecodeError` for a string that is not UTF-8, and `ValueError` for an array of arrays.
    """
    with path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.nbytes)
    if len(data) < entry.nbytes:
        raise ValueError("the file has become shorter")
    if (dtype := _SCALARS.get(entry.kind)) is not None:
        return np.frombuffer(data, dtype)
    if entry.kind != GGUFValueType.STRING:
        raise ValueError("it is an array of arrays")
    strings, position = [], 0
    for _ in range(entry.count):
        begin = position + _U64.size
        position = begin + _U64.unpack_from(data, position)[0]
        strings.append(data[begin:position].decode())
    return strings


class _Parser:
    """Reads a header from its start to its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.end = min(len(data), HEADER_LIMIT)
        self.position = 0
        self.string_bytes = 0
        self.metadata: dict[str, str] = {}
        self.arrays: dict[str, ArrayEntry] = {}

    def header(self) -> GGUFHeader:
        self.take(len(MAGIC))
        self._check_version(self.u32())
        tensor_count, field_count = self.u64(), self.u64()
        if max(tensor_count, field_count) > _MAX_ENTRIES:
            raise self.damaged(f"it counts {tensor_count} tensors and {field_count} fields")
        for _ in range(field_count):
            self._read_field()
        self._check_split()
        found = dict(self._read_tensor() for _ in range(tensor_count))
        if len(found) != tensor_count:
            raise self.damaged("two tensors have the same name")
        return GGUFHeader(self.metadata, self.arrays, self._placed(found))

    # Numbers, strings and errors ------------------------------------------------------------------------------------

    def take(self, size: int) -> int:
        """Advance by a number of bytes; return the position before. Raises `WeightsCorrupt` at the end of the file."""
        begin = self.position
        if (missing := begin + size - self.end) > 0:
            if size > HEADER_LIMIT:
                raise self.damaged(f"it has an entry of {size} bytes")
            if self.end == HEADER_LIMIT:
                raise WeightsCorrupt(f"{self.path} has a header of more than {HEADER_LIMIT >> 20} MiB")
            raise WeightsCorrupt(
                f"{self.path} is cut short in its header: it has {len(self.data)} bytes, and at least {missing} more "
                "are needed; download it again"
            )
        self.position += size
        return begin

    def u32(self) -> int:
        return int(_U32.unpack_from(self.data, self.take(_U32.size))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self.data, self.take(_U64.size))[0])

    def name(self) -> str:
        if (size := self.u64()) > _MAX_NAME:
            raise self.damaged(f"it has a name of {size} bytes")
        try:
            return self._bytes(size).decode()
        except UnicodeDecodeError:
            raise self.damaged("it has a name that is not UTF-8") from None

    def value_type(self) -> GGUFValueType:
        number = self.u32()
        try:
            return GGUFValueType(number)
        except ValueError:
            raise self.damaged(f"it has a field of the unknown type {number}") from None

    def damaged(self, reason: str) -> WeightsCorrupt:
        return WeightsCorrupt(f"{self.path} has a damaged GGUF header: {reason}; download it again")

    def _bytes(self, size: int) -> bytes:
        begin = self.take(size)
        return self.data[begin : begin + size]

    # Fields -----------------------------------------------------------------------------------------------------------

    def _read_field(self) -> None:
        name = self.name()
        if name in self.metadata or name in self.arrays:
            raise self.damaged(f"it has the field {name[:80]!r} twice")
        kind = self.value_type()
        if kind == GGUFValueType.ARRAY:
            self.arrays[name] = self._read_array(1)
        elif kind == GGUFValueType.STRING:
            self._read_string(name)
        else:
            dtype = np.dtype(_SCALARS[kind])
            begin = self.take(dtype.itemsize)
            value = np.frombuffer(self.data, dtype, 1, begin)[0].item()
            self.metadata[name] = str(value).lower() if kind == GGUFValueType.BOOL else str(value)

    def _read_string(self, name: str) -> None:
        size = self.u64()
        if size > _MAX_STRING:
            self.take(size)
            return
        self.string_bytes += size
        if self.string_bytes > _MAX_STRINGS:
            raise self.damaged(f"it has more than {_MAX_STRINGS >> 20} MiB of descriptions")
        # Some tools write descriptions in other encodings.
        self.metadata[name] = self._bytes(size).decode(errors="replace")

    def _read_array(self, depth: int) -> ArrayEntry:
        """Pass over an array."""
        kind, count = self.value_type(), self.u64()
        begin = self.position
        if (dtype := _SCALARS.get(kind)) is not None:
            self.take(np.dtype(dtype).itemsize * count)
        elif depth == _MAX_NESTING:
            raise self.damaged("it has too many arrays inside each other")
        elif kind == GGUFValueType.STRING:
            self._pass_strings(count)
        else:
            for _ in range(count):
                self._read_array(depth + 1)
        return ArrayEntry(begin, self.position - begin, count, kind)

    def _pass_strings(self, count: int) -> None:
        if count * _U64.size > self.end - self.position:
            self.take(count * _U64.size)
        data, position, last = self.data, self.position, self.end - _U64.size
        unpack = _U64.unpack_from
        for _ in range(count):
            if position > last:
                break
            position += _U64.size + unpack(data, position)[0]
        else:
            if position <= self.end:
                self.position = position
                return
        # The string that ends beyond the end of the header raises.
        self.take(position - self.position + (_U64.size if position <= self.end else 0))

    # Tensors ----------------------------------------------------------------------------------------------------------

    def _read_tensor(self) -> tuple[str, TensorEntry]:
        """Return a tensor's name and its entry, whose offset is still that in the data behind the header."""
        name = self.name()
        if (axes := self.u32()) > _MAX_AXES:
            raise self.damaged(f"the tensor {name[:80]!r} has {axes} axes")
        sides = [self.u64() for _ in range(axes)]
        number, offset = self.u32(), self.u64()
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise WeightsCorrupt(
                f"{self.path}: the tensor {name[:80]!r} is stored as GGUF type {number}, which allaprima can't read"
            ) from None
        block, size = GGML_QUANT_SIZES[kind]
        if (sides[0] if sides else 1) % block:
            raise self.damaged(f"the tensor {name[:80]!r} has rows of no whole blocks of {kind.name}")
        return name, TensorEntry(offset, math.prod(sides) // block * size, kind, tuple(reversed(sides)))

    def _placed(self, tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
        """Return the entries with their offsets in the file, inside of which all tensors lie without overlap."""
        alignment = self._alignment()
        begin = -(-self.position // alignment) * alignment
        end = 0
        for name, entry in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
            if entry.offset < end or entry.offset % alignment:
                raise self.damaged(f"the tensor {name[:80]!r} overlaps another one or is not aligned")
            end = entry.offset + entry.nbytes
        if end and (missing := begin + end - len(self.data)) > 0:
            raise WeightsCorrupt(
                f"{self.path} is cut short: it has {len(self.data)} bytes, and {missing} are missing at its end; "
                "download it again"
            )
        return {
            name: TensorEntry(begin + entry.offset, entry.nbytes, entry.kind, entry.shape)
            for name, entry in tensors.items()
        }

    def _alignment(self) -> int:
        text = self.metadata.get("general.alignment", str(_DEFAULT_ALIGNMENT))
        alignment = int(text) if text.isdecimal() else 0
        if alignment == 0 or alignment & (alignment - 1):
            raise self.damaged(f"general.alignment is {text[:20]!r}, which is no power of two")
        return alignment

    # Other kinds of GGUF --------------------------------------------------------------------------------------------

    def _check_version(self, version: int) -> None:
        if version & 0xFFFF == 0:
            raise WeightsCorrupt(
                f"{self.path} is a big-endian GGUF file; take the little-endian file of the same model"
            )
        if version not in _VERSIONS:
            age = (
                "an old version; convert the model again" if version < min(_VERSIONS) else "which allaprima can't read"
            )
            raise WeightsCorrupt(f"{self.path} is GGUF version {version}, {age}")

    def _check_split(self) -> None:
        count = self.metadata.get("split.count", "0")
        if not count.isdecimal() or int(count) < 2:
            return
        parts, output = "its parts", "OUTPUT"
        if (match := _PART_NAME.fullmatch(self.path.name)) is not None:
            output = f"{match['model']}.gguf"
            first, last = (f"{match['model']}-{number:05}-of-{int(count):05}.gguf" for number in (1, int(count)))
            parts = f"{first} to {last}"
        first_part = parts.partition(" ")[0] if match else "FIRST_PART"
        raise WeightsCorrupt(
            f"{self.path} is one of {count} parts of a split model; join {parts} with "
            f"`llama-gguf-split --merge {first_part} {output}`"
        )
