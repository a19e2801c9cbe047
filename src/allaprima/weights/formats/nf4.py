"""Unpacks bitsandbytes' NF4 and FP4: two 4-bit codes a byte, and one scale for each block of a matrix.

A matrix `W` is stored as `W` (the codes, the first of two in the high bits), `W.absmax` (the largest magnitude of each
block), `W.quant_map` (the values of the 16 codes) and `W.quant_state.bitsandbytes__nf4` (a description in JSON). In
nested files `W.absmax` has 8-bit codes itself, with `W.nested_absmax` and `W.nested_quant_map`. Source: Dettmers et al.
2023 (2305.14314), appendix E; bitsandbytes-foundation/bitsandbytes `functional.py`, `QuantState`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from allaprima.errors import WeightsCorrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from allaprima.weights.formats.container import Container

#: Endings, after a weight's name, of the keys of its quantization.
KEYS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
DESCRIPTION = re.compile(r"(?P<weight>.+)\.quant_state\.bitsandbytes__(?P<type>nf4|fp4)")
#: The values of the codes of each type.
CODES = {
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
    "fp4": tuple(sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3)),
}
#: Largest difference of a file's code values from `CODES`; files round them to float32 or bfloat16.
_CODE_TOLERANCE = 0.004
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = ("bfloat16", "float16", "float32")
_MAX_DESCRIPTION = 4096
#: Dtypes of the tensors that hold the codes; the bytes count.
_STORAGE = {"U8": 1, "I8": 1, "BF16": 2, "F16": 2, "F32": 4}
_FLOATS = ("F32", "F16", "BF16")
#: Bytes that are unpacked at a time.
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """The description of one matrix in NF4 or FP4."""

    name: str
    #: `nf4` or `fp4`.
    quant_type: str
    #: Of the unpacked matrix.
    shape: tuple[int, ...]
    #: Number of values that share a scale.
    block_size: int
    #: Number of scales that share a scale; None if the scales are stored as they are.
    nested_block_size: int | None
    #: Added to each scale of a nested file.
    nested_offset: float

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def packed_matrices(container: Container) -> Mapping[str, PackedMatrix]:
    """Return the matrices of a file that are stored in NF4 or FP4, by the name of the tensor with the codes.

    Reads the descriptions and checks them against the shapes and dtypes of the file's tensors. Raises `WeightsCorrupt`
    naming file, matrix and field.
    """
    found = {}
    for name in container.shapes:
        if match := DESCRIPTION.fullmatch(name):
            matrix = _described(container, name, match["weight"], match["type"])
            _check_tensors(container, matrix)
            found[matrix.name] = matrix
    return found


def unpack(container: Container, matrix: PackedMatrix, packed: Tensor) -> Tensor:
    """Return an unpacked matrix in float32. packed: the tensor with the codes, of any shape and dtype.

    The scales are read from the file. Raises `WeightsCorrupt` naming file and tensor.
    """
    import torch

    codes = packed.reshape(-1).view(torch.uint8).numpy()
    scales = _scales(container, matrix)
    values = _floats(container, f"{matrix.name}.quant_map")
    if not np.allclose(values, CODES[matrix.quant_type], rtol=0, atol=_CODE_TOLERANCE):
        raise WeightsCorrupt(f"{container.path}: {matrix.name}.quant_map is not that of {matrix.quant_type}")
    pairs = np.stack([np.repeat(values, 16), np.tile(values, 16)], axis=1)
    unpacked = np.empty((len(codes), 2), np.float32)
    for start in range(0, len(codes), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        unpacked[chunk] = pairs[codes[chunk]]
    flat = unpacked.reshape(-1)[: matrix.count]
    whole = matrix.count // matrix.block_size * matrix.block_size
    blocks = flat[:whole].reshape(-1, matrix.block_size)
    blocks *= scales[: len(blocks), None]
    flat[whole:] *= scales[-1]
    return torch.from_numpy(flat).reshape(matrix.shape)


def _scales(container: Container, matrix: PackedMatrix) -> NDArray[np.float32]:
    name = f"{matrix.name}.absmax"
    if matrix.nested_block_size is None:
        scales = _floats(container, name)
    else:
        codes = container.read(name).reshape(-1).numpy()
        outer = np.repeat(_floats(container, f"{matrix.name}.nested_absmax"), matrix.nested_block_size)[: len(codes)]
        scales = _floats(container, f"{matrix.name}.nested_quant_map")[codes] * outer
        scales += np.float32(matrix.nested_offset)
    if not np.isfinite(scales).all():
        raise WeightsCorrupt(f"{container.path}: the tensor {name} holds values that are not finite")
    return scales


def _floats(container: Container, name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = container.read(name).reshape(-1).float().numpy()
    return values


# Descriptions ---------------------------------------------------------------------------------------------------------


def _described(container: Container, name: str, weight: str, quant_type: str) -> PackedMatrix:
    """Return the matrix that a description describes."""

    def check(ok: object, field: str) -> None:
        if not ok:
            shown = repr(fields.get(field))[:40]
            raise WeightsCorrupt(f"{container.path}: {name} has an invalid {field}: {shown}")

    fields = _fields(container, name)
    shape: Any = fields.get("shape")
    block: Any = fields.get("blocksize")
    nested_block: Any = fields.get("nested_blocksize")
    offset: Any = fields.get("nested_offset")
    check(fields.get("quant_type") == quant_type, "quant_type")
    check(fields.get("dtype") in _DTYPES, "dtype")
    check(_is_size(block) and block in _BLOCK_SIZES, "blocksize")
    is_shape = isinstance(shape, list) and 1 <= len(shape) <= 4
    check(is_shape and all(_is_size(one) and 0 < one < 2**31 for one in shape), "shape")
    is_nested = any(fields.get(one) is not None for one in ("nested_blocksize", "nested_offset", "nested_dtype"))
    if is_nested:
        check(_is_size(nested_block) and nested_block in _BLOCK_SIZES, "nested_blocksize")
        check(isinstance(offset, float | int) and not isinstance(offset, bool) and abs(offset) < 1e30, "nested_offset")
        check(fields.get("nested_dtype", "float32") in _DTYPES, "nested_dtype")
    return PackedMatrix(weight, quant_type, tuple(shape), block, nested_block, float(offset or 0))


def _fields(container: Container, name: str) -> dict[str, Any]:
    """Return the fields of a description."""
    shape, dtype = container.shapes[name], container.dtypes[name]
    if dtype not in ("U8", "I8") or len(shape) != 1 or not 0 < shape[0] <= _MAX_DESCRIPTION:
        raise WeightsCorrupt(f"{container.path}: {name} is not a description of a packed matrix")
    try:
        fields = json.loads(container.read(name).numpy().tobytes())
    except (ValueError, RecursionError) as exc:
        raise WeightsCorrupt(f"{container.path}: {name} is not valid JSON") from exc
    if not isinstance(fields, dict):
        raise WeightsCorrupt(f"{container.path}: {name} is not a JSON object")
    return fields


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_tensors(container: Container, matrix: PackedMatrix) -> None:
    """Check that the tensors of a packed matrix exist, with the number of values that its shape needs."""
    blocks = -(-matrix.count // matrix.block_size)
    nested = matrix.nested_block_size
    expected = {".absmax": (blocks, ("U8",) if nested else _FLOATS), ".quant_map": (16, _FLOATS)}
    if nested:
        expected |= {".nested_absmax": (-(-blocks // nested), _FLOATS), ".nested_quant_map": (256, _FLOATS)}
    stored = container.dtypes.get(matrix.name, "")
    nbytes = (matrix.count + 1) // 2
    if stored not in _STORAGE or math.prod(container.shapes[matrix.name]) * _STORAGE[stored] != nbytes:
        found = f"{container.shapes[matrix.name]} in {stored}" if stored else "none"
        raise WeightsCorrupt(
            f"{container.path}: {matrix.name} needs {nbytes} bytes for the shape {matrix.shape}, "
            f"and the file has {found}"
        )
    for ending, (count, dtypes) in expected.items():
        name = f"{matrix.name}{ending}"
        if name not in container.shapes:
            raise WeightsCorrupt(f"{container.path} lacks the tensor {name}")
        if math.prod(container.shapes[name]) != count or container.dtypes[name] not in dtypes:
            raise WeightsCorrupt(
                f"{container.path}: the tensor {name} has the shape {container.shapes[name]} in "
                f"{container.dtypes[name]}; it needs {count} values in {' or '.join(dtypes)}"
            )
