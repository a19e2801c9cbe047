"""Reads the tensors of a file whose layers may be quantized: float8 of ComfyUI, NF4 and FP4 of bitsandbytes.

Checkpoints of ComfyUI can have float8 tensors, with or without one scale per layer (`<layer>.scale_weight`, or
`.weight_scale` in the newer format); a scaled tensor is multiplied by its scale in float32. A file can declare the
format of a layer, in its metadata or in `<layer>.comfy_quant`. Stored dtype, declaration and scale are checked against
each other before any scale is applied: integers with a scale may be float8, or may have been rotated before rounding.
Source: Comfy-Org/ComfyUI `comfy/ops.py`, `comfy/quant_ops.py` and `QUANTIZATION.md`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from allaprima.errors import WeightsCorrupt
from allaprima.weights.checkpoint.zeros import check_not_zero
from allaprima.weights.formats import nf4

if TYPE_CHECKING:
    from torch import Tensor

    from allaprima.weights.formats.container import Container

#: Endings of the keys of a layer's scale.
_SCALES = (".scale_weight", ".weight_scale")
#: Endings of all keys that a quantized layer has besides its weight and bias. Only the scales are needed to read it.
_QUANTIZATION_KEYS = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant")
#: The formats that a file can declare, the dtype in which each stores weights, and torch's name of the dtype.
_DECLARED = {"float8_e4m3fn": ("F8_E4M3", "float8_e4m3fn"), "float8_e5m2": ("F8_E5M2", "float8_e5m2")}
#: The dtype of weights whose bytes are float8 if the file declares it.
_BYTES = "U8"
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_INTEGERS = ("U8", "I8", "I16", "I32", "I64", "U16", "U32", "U64", "BOOL")
_SCALE_DTYPES = ("F32", "F16", "BF16", "F64")
_MAX_DECLARATION = 4096
#: The last word of the tensor by which ComfyUI marks a component whose layers are scaled.
SCALED_MARKER = "scaled_fp8"
#: Matrices that writers of scaled files store without a scale: those of embeddings.
_EMBEDDINGS = re.compile(
    r"(^|\.)(shared|embed_tokens|token_embd|\w+_embedding|relative_attention_bias|attn_rel_b)\.weight$"
)
#: Most words of a prefix, plus one: `text_encoders.t5xxl.transformer.`.
_PREFIX_PARTS = 4


class LayerFormats:
    """The number formats of the layers of one file."""

    def __init__(self, container: Container) -> None:
        """Raises `WeightsCorrupt` naming file, layer, declared and stored format for a layer that can't be read."""
        self.container = container
        self._packed = nf4.packed_matrices(container)
        #: The scale of each weight that has one.
        self._scales: dict[str, str] = {}
        #: The declared format of each weight for which the file declares one.
        self._declared = {name: one for name, one in _declarations(container).items() if name in container.shapes}
        for name in container.shapes:
            for ending in _SCALES:
                weight = f"{name.removesuffix(ending)}.weight"
                if name.endswith(ending) and weight in container.shapes:
                    if weight in self._scales:
                        raise WeightsCorrupt(
                            f"{container.path}: {weight} has two scales, {self._scales[weight]} and {name}"
                        )
                    self._scales[weight] = name
        for weight in sorted(self._declared.keys() | self._scales.keys()):
            self._check(weight)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor as it is read."""
        packed = self._packed.get(name)
        return packed.shape if packed is not None else self.container.shapes[name]

    def is_quantization(self, name: str) -> bool:
        """Whether a tensor is the scale or other quantization data of a layer in the file."""
        if described := nf4.DESCRIPTION.fullmatch(name):
            return described["weight"] in self._packed
        if any(name.removesuffix(ending) in self._packed for ending in nf4.KEYS if name.endswith(ending)):
            return True
        layer = next((name.removesuffix(ending) for ending in _QUANTIZATION_KEYS if name.endswith(ending)), None)
        return layer is not None and f"{layer}.weight" in self.container.shapes

    def check_scales(self, prefix: str, keys: Sequence[str]) -> None:
        """Check that each float8 layer of a component has a scale if another one has, or if its marker says so.

        keys: without the prefix. Embeddings have no scale. ComfyUI reads a layer without one as if it were 1, but does
        not write such layers, so the scale was lost. Raises `WeightsCorrupt` naming file and tensor.
        """
        names = [prefix + key for key in keys]
        marker = prefix + SCALED_MARKER
        evidence = next((self._scales[name] for name in names if name in self._scales), None)
        if evidence is None and marker in self.container.shapes:
            evidence = marker
        for name in names if evidence is not None else ():
            if (
                name.endswith(".weight")
                and name not in self._scales
                and len(self.container.shapes[name]) == 2
                and self.container.dtypes[name] in _FLOAT8
                and not _EMBEDDINGS.search(name)
            ):
                raise WeightsCorrupt(
                    f"{self.container.path}: {name} is stored as {self.container.dtypes[name]} without a scale, in a "
                    f"file of scaled layers (it has {evidence}); take a complete file"
                )

    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU, in the file's dtype, or in float32 if it is quantized with scales.

        Raises `WeightsCorrupt` naming file and tensor, also for a matrix that holds only zeros, or ends in them.
        """
        tensor = self._read(name)
        check_not_zero(self.container.path, name, tensor)
        return tensor

    def _read(self, name: str) -> Tensor:
        if (packed := self._packed.get(name)) is not None:
            codes = self.container.read(name).reshape(-1, 1)
            # Zeros unpack to values that are not zero.
            check_not_zero(self.container.path, name, codes)
            return nf4.unpack(self.container, packed, codes)
        tensor = self.container.read(name)
        if name in self._declared and self.container.dtypes[name] == _BYTES:
            import torch

            tensor = tensor.view(getattr(torch, _DECLARED[self._declared[name]][1]))
        if (scale_name := self._scales.get(name)) is None:
            return tensor
        scale = self.container.read(scale_name).float().reshape(())
        if not (scale.isfinite() and scale > 0):
            raise WeightsCorrupt(f"{self.container.path}: the scale {scale_name} must be positive, not {float(scale)}")
        return tensor.float() * scale

    def _check(self, weight: str) -> None:
        """Check that what the file declares of a weight, its dtype and its scale fit each other."""
        path, stored = self.container.path, self.container.dtypes[weight]
        declared, scale = self._declared.get(weight), self._scales.get(weight)
        if scale is not None and weight in self._packed:
            raise WeightsCorrupt(
                f"{path}: {weight} is stored in {self._packed[weight].quant_type} and has the scale {scale}"
            )
        if declared is None and stored in _INTEGERS:
            raise WeightsCorrupt(
                f"{path}: {weight} is stored as {stored} with the scale {scale}, and the file does not declare its "
                "format, so its weights may be rotated; take the GGUF or fp8 file of the same model"
            )
        if scale is not None and math.prod(self.container.shapes[scale]) != 1:
            raise WeightsCorrupt(
                f"{path}: the scale {scale} must have one value, not the shape {self.container.shapes[scale]}"
            )
        if scale is not None and self.container.dtypes[scale] not in _SCALE_DTYPES:
            raise WeightsCorrupt(
                f"{path}: the scale {scale} is stored as {self.container.dtypes[scale]}; scales are floating-point"
            )
        if declared is not None:
            if stored not in (_DECLARED[declared][0], _BYTES) or weight in self._packed:
                raise WeightsCorrupt(f"{path}: {weight} is declared as {declared}, and stored as {stored}")
            if scale is None:
                raise WeightsCorrupt(
                    f"{path}: {weight} is declared as {declared}, and lacks its scale "
                    f"{weight.removesuffix('.weight')}.weight_scale; download the whole file"
                )
        elif stored not in _FLOAT8:
            raise WeightsCorrupt(
                f"{path}: {weight} is stored as {stored} and has the scale {scale}; only float8 weights have a scale"
            )


def _declarations(container: Container) -> dict[str, str]:
    """Return the declared formats by the name of the weight.

    Raises `WeightsCorrupt` naming a layer in an unsupported format.
    """
    try:
        formats = {layer: (name, str(values["format"]), values) for layer, name, values in _described(container)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(
            f"{container.path} has an invalid description of its number formats, in _quantization_metadata or a tensor "
            ".comfy_quant"
        ) from exc
    for name, number_format, values in formats.values():
        shown = f"{number_format} with convrot" if values.get("convrot") else number_format
        if shown not in _DECLARED:
            raise WeightsCorrupt(
                f"{container.path}: {name} is stored as {shown[:40]!r}, which allaprima can't read; "
                f"the supported number formats are {', '.join(_DECLARED)}; take the GGUF or fp8 file of the same model"
            )
    return _by_weight(container, {layer: number_format for layer, (_, number_format, _) in formats.items()})


def _described(container: Container) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each described layer, the name of its description, and the description. Invalid ones raise any error."""
    if description := container.metadata.get("_quantization_metadata"):
        for layer, values in json.loads(description)["layers"].items():
            yield layer, layer, dict(values)
    for name, shape in container.shapes.items():
        if name.endswith(".comfy_quant"):
            if len(shape) != 1 or shape[0] > _MAX_DECLARATION:
                raise ValueError(name)
            yield name.removesuffix(".comfy_quant"), name, dict(json.loads(bytes(container.read(name).tolist())))


def _by_weight(container: Container, formats: dict[str, str]) -> dict[str, str]:
    """Return formats by the full names of the weights. Metadata may name layers without the prefix of a bundle."""
    found = {}
    for layer, number_format in formats.items():
        weight = f"{layer}.weight"
        if weight in container.shapes:
            found[weight] = number_format
    rest = {layer: one for layer, one in formats.items() if f"{layer}.weight" not in found}
    for name in container.shapes if rest else ():
        if not name.endswith(".weight"):
            continue
        parts = name.removesuffix(".weight").split(".")
        for i in range(1, min(len(parts), _PREFIX_PARTS)):
            if (without_prefix := ".".join(parts[i:])) in rest:
                found.setdefault(name, rest[without_prefix])
    return found
