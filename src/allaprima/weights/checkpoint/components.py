"""Reads the tensors of one component from a checkpoint file, by their canonical names.

A canonical tensor that a file stores in several parts is concatenated, and its halves are swapped where the file's
order differs. Checkpoints of ComfyUI can have float8 tensors, with or without one scale per layer
(`<layer>.scale_weight`, or `.weight_scale` in the newer format); a scaled tensor is multiplied by its scale in float32.
Source: Comfy-Org/ComfyUI `comfy/ops.py`, `comfy/quant_ops.py` and `QUANTIZATION.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allaprima.errors import WeightsCorrupt
from allaprima.weights.checkpoint.key_maps import (
    CHECKPOINT_FORMATS,
    REVERSED_LEVEL,
    CheckpointFormat,
    Component,
    KeyTarget,
)
from allaprima.weights.formats.container import Container

if TYPE_CHECKING:
    from torch import Tensor

#: Endings of the keys of a layer's scale.
_SCALES = (".scale_weight", ".weight_scale")
#: Endings of all keys that a quantized layer has besides its weight and bias. Only the scales are needed to read it.
_QUANTIZATION_KEYS = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant")
#: Keys outside the layers that FLUX's networks don't use: ComfyUI's marker of scaled files, and a parameter of the full
#: CLIP model that some files of its text encoder still have.
_IGNORED_KEYS = ("scaled_fp8", "logit_scale")
_READABLE_FORMATS = ("float8_e4m3fn",)
#: Weights of 1x1 convolutions, which diffusers stores as linears, without the last two axes.
_POINTWISE = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")

Shape = tuple[int, ...]


@dataclass(slots=True)
class _Source:
    """The keys whose tensors are the parts of one canonical tensor."""

    #: In the order of concatenation; None for a part that the file lacks.
    keys: list[str | None]
    swaps_halves: bool


class ComponentFile:
    """One component in one file."""

    def __init__(self, component: Component, container: Container, sources: Mapping[str, _Source], prefix: str) -> None:
        """sources: by canonical name. prefix: the prefix that the file puts before all keys of `sources`.

        Raises `WeightsCorrupt` naming file and tensor when a source is incomplete or the shapes of its parts don't
        match.
        """
        self.component = component
        self.container = container
        self._sources = sources
        self._prefix = prefix
        #: The shapes of the file's tensors, by canonical name.
        self.shapes: Mapping[str, Shape] = {name: self._shape(name, source) for name, source in sources.items()}

    def read(self, name: str) -> Tensor:
        """Return one canonical tensor, on the CPU, in the file's dtype, or float32 if it is block-quantized or scaled.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        import torch

        source = self._sources[name]
        chunks = [self._read_key(key) for key in source.keys if key is not None]
        if source.swaps_halves:
            chunks = [half for chunk in chunks for half in reversed(chunk.chunk(2))]
        whole = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
        return whole.reshape(self.shapes[name])

    def _read_key(self, key: str) -> Tensor:
        tensor = self.container.read(self._prefix + key)
        layer = key.removesuffix(".weight")
        for suffix in _SCALES:
            name = self._prefix + layer + suffix
            if name in self.container.shapes:
                scale = self.container.read(name)
                if scale.numel() != 1:
                    raise WeightsCorrupt(
                        f"{self.container.path}: the scale {name} must have one value, "
                        f"not the shape {tuple(scale.shape)}"
                    )
                return tensor.float() * scale.float()
        return tensor

    def _shape(self, name: str, source: _Source) -> Shape:
        if None in source.keys:
            missing = source.keys.index(None)
            raise WeightsCorrupt(
                f"{self.container.path} lacks part {missing + 1} of {len(source.keys)} of the tensor {name}"
            )
        shapes = [self.container.shapes[f"{self._prefix}{key}"] for key in source.keys]
        if any(shape[1:] != shapes[0][1:] or not shape for shape in shapes) and len(shapes) > 1:
            raise WeightsCorrupt(f"{self.container.path}: the parts of the tensor {name} do not fit: {shapes}")
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        return (*whole, 1, 1) if _POINTWISE.search(name) and len(whole) == 2 else whole


def components_in(container: Container) -> list[ComponentFile]:
    """Return all components in a file; an empty list for a file without tensors of FLUX.

    Raises `WeightsCorrupt` for a tensor that belongs to no component, and for an unsupported number format.
    """
    names = set(container.shapes)
    found = [(known, prefix) for known in CHECKPOINT_FORMATS if (prefix := known.prefix_in(names)) is not None]
    if not found:
        return []
    _check_number_formats(container)
    components = []
    remaining = {name for name in names if name.rpartition(".")[2] not in _IGNORED_KEYS}
    # Longest prefix first: a component without a prefix matches all remaining names.
    found.sort(key=lambda one: len(one[1]), reverse=True)
    for checkpoint_format, prefix in found:
        keys = sorted(name.removeprefix(prefix) for name in remaining if name.startswith(prefix))
        sources = _sources(container, checkpoint_format, prefix, keys)
        components.append(ComponentFile(checkpoint_format.component, container, sources, prefix))
        remaining -= {prefix + key for key in keys}
    if remaining:
        raise WeightsCorrupt(f"{container.path} has the unexpected tensor {min(remaining)} ({len(remaining)} in all)")
    return components


def _sources(
    container: Container, checkpoint_format: CheckpointFormat, prefix: str, keys: list[str]
) -> dict[str, _Source]:
    """Return the sources of a component's tensors, by canonical name."""
    sources: dict[str, _Source] = {}
    copies: dict[str, str] = {}
    for key in keys:
        if key in checkpoint_format.unused_keys or _belongs_to_quantized_layer(key, prefix, container):
            continue
        unexpected = WeightsCorrupt(f"{container.path} has the unexpected tensor {prefix}{key}")
        target = checkpoint_format.target(key)
        if target is None:
            raise unexpected
        if target.is_copy:
            copies[target.name] = key
            continue
        empty = _Source([None] * target.count, target.swaps_halves)
        source = sources.setdefault(_canonical_level(target, keys), empty)
        if source.keys[target.index] is not None:
            raise unexpected
        source.keys[target.index] = key
    for name, key in copies.items():
        original = sources.setdefault(name, _Source([key], swaps_halves=False)).keys[0]
        if container.shapes[f"{prefix}{original}"] != container.shapes[prefix + key]:
            raise WeightsCorrupt(
                f"{container.path}: {prefix}{key} should be a copy of {original}, but has another shape"
            )
    return sources


def _belongs_to_quantized_layer(key: str, prefix: str, container: Container) -> bool:
    """Whether a key is the scale or other quantization data of a layer in the file."""
    layer = next((key.removesuffix(ending) for ending in _QUANTIZATION_KEYS if key.endswith(ending)), None)
    return layer is not None and f"{prefix}{layer}.weight" in container.shapes


def _canonical_level(target: KeyTarget, keys: list[str]) -> str:
    """Return the target's canonical name, in which the decoder's resolutions are numbered from the highest."""
    found = REVERSED_LEVEL.search(target.name)
    if found is None:
        return target.name
    levels = [int(number) for key in keys for number in re.findall(r"^decoder\.up_blocks\.(\d{1,6})\.", key)]
    last = max(levels, default=0)
    return REVERSED_LEVEL.sub(str(last - int(found[1])), target.name)


def _check_number_formats(container: Container) -> None:
    """Raise `WeightsCorrupt` naming the first layer that is stored in an unsupported number format of ComfyUI."""
    formats: dict[str, Any] = {}
    try:
        if description := container.metadata.get("_quantization_metadata"):
            layers = json.loads(description)["layers"]
            formats |= {layer: values["format"] for layer, values in layers.items()}
        for name in container.shapes:
            if name.endswith(".comfy_quant"):
                formats[name] = json.loads(bytes(container.read(name).tolist()))["format"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(f"{container.path} has an invalid description of its number formats") from exc
    for name, number_format in formats.items():
        if number_format not in _READABLE_FORMATS:
            raise WeightsCorrupt(
                f"{container.path}: {name} is stored as {str(number_format)[:40]!r}, which allaprima can't read; "
                f"the supported number formats are {', '.join(_READABLE_FORMATS)}"
            )
