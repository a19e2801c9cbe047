"""One network's tensors inside a file, under our names: joined, turned and unscaled as they are read.

Files in the manner of ComfyUI may hold fp8 numbers, as they are or with a factor a layer beside them
(`<layer>.scale_weight`, or `.weight_scale` in its newer format); what is read is the product, in float32.
Source: Comfy-Org/ComfyUI `comfy/ops.py`, `comfy/quant_ops.py` and `QUANTIZATION.md`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from allaprima.errors import WeightsCorrupt
from allaprima.weights.checkpoint.key_maps import LAYOUTS, LEVEL, Layout, Part, Target
from allaprima.weights.formats.containers import Container

#: What a layer's factor is called, and what else stands beside quantised layers without being needed to read them.
_SCALES = (".scale_weight", ".weight_scale")
_BESIDE = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant")
#: Tensors outside of any layer that say nothing about FLUX's networks: ComfyUI's mark of scaled files, and what was
#: left of a whole CLIP or T5 when its encoder was taken out.
_ALONE = ("scaled_fp8", "logit_scale")
_READABLE_FORMATS = ("float8_e4m3fn",)
#: Our 1x1 convolutions, which diffusers stores as linears.
_POINTWISE = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")

Shape = tuple[int, ...]


@dataclass(slots=True)
class _Source:
    """The file's tensors of which one of ours is made, in order; None where one is missing."""

    names: list[str | None]
    swaps_halves: bool


class PartFile:
    """One network in one file."""

    def __init__(self, part: Part, container: Container, sources: Mapping[str, _Source], prefix: str) -> None:
        self.part = part
        self.container = container
        self._sources = sources
        self._prefix = prefix
        #: The shape of each of our tensors that the file can give.
        self.shapes: Mapping[str, Shape] = {name: self._shape(name, source) for name, source in sources.items()}

    def read(self, name: str) -> Tensor:
        """Return one of our tensors, on the CPU, as stored, or float32 where it was packed or scaled.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        source = self._sources[name]
        pieces = [self._read_piece(theirs) for theirs in source.names if theirs is not None]
        if source.swaps_halves:
            pieces = [half for piece in pieces for half in reversed(piece.chunk(2))]
        whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        return whole.reshape(self.shapes[name])

    def _read_piece(self, theirs: str) -> Tensor:
        tensor = self.container.read(self._prefix + theirs)
        layer = theirs.removesuffix(".weight")
        for suffix in _SCALES:
            name = self._prefix + layer + suffix
            if name in self.container.shapes:
                scale = self.container.read(name)
                if scale.numel() != 1:
                    raise WeightsCorrupt(f"{self.container.path}: {name} is not one factor but {tuple(scale.shape)}")
                return tensor.float() * scale.float()
        return tensor

    def _shape(self, name: str, source: _Source) -> Shape:
        if None in source.names:
            place = source.names.index(None)
            raise WeightsCorrupt(
                f"{self.container.path} lacks part {place + 1} of {len(source.names)} of the tensor {name}"
            )
        shapes = [self.container.shapes[f"{self._prefix}{theirs}"] for theirs in source.names]
        if any(shape[1:] != shapes[0][1:] or not shape for shape in shapes) and len(shapes) > 1:
            raise WeightsCorrupt(f"{self.container.path}: the parts of the tensor {name} do not fit: {shapes}")
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        return (*whole, 1, 1) if _POINTWISE.search(name) and len(whole) == 2 else whole


def parts_of(container: Container) -> list[PartFile]:
    """Return every network that a file holds; none for a file that has nothing of FLUX.

    Raises `WeightsCorrupt` for tensors that belong nowhere, and for number formats that can't be read.
    """
    names = set(container.shapes)
    found = [(layout, prefix) for layout in LAYOUTS if (prefix := layout.prefix_in(names)) is not None]
    if not found:
        return []
    _check_formats(container)
    parts = []
    left = {name for name in names if name.rpartition(".")[2] not in _ALONE}
    # The longest prefix first: one without any takes what is left.
    for layout, prefix in sorted(found, key=lambda one: -len(one[1])):
        own = sorted(name.removeprefix(prefix) for name in left if name.startswith(prefix))
        parts.append(PartFile(layout.part, container, _sources(container, layout, prefix, own), prefix))
        left -= {prefix + name for name in own}
    if left:
        raise WeightsCorrupt(f"{container.path} has the unexpected tensor {min(left)} ({len(left)} in all)")
    return parts


def _sources(container: Container, layout: Layout, prefix: str, names: list[str]) -> dict[str, _Source]:
    sources: dict[str, _Source] = {}
    copies: dict[str, str] = {}
    for theirs in names:
        if theirs in layout.unused or _stands_beside(theirs, prefix, container):
            continue
        unexpected = WeightsCorrupt(f"{container.path} has the unexpected tensor {prefix}{theirs}")
        target = layout.target(theirs)
        if target is None:
            raise unexpected
        if target.is_copy:
            copies[target.name] = theirs
            continue
        source = sources.setdefault(_place_level(target, names), _Source([None] * target.of, target.swaps_halves))
        if source.names[target.place] is not None:
            raise unexpected
        source.names[target.place] = theirs
    for name, theirs in copies.items():
        first = sources.setdefault(name, _Source([theirs], swaps_halves=False)).names[0]
        if container.shapes[f"{prefix}{first}"] != container.shapes[prefix + theirs]:
            raise WeightsCorrupt(f"{container.path}: {prefix}{theirs} is not the copy of {first} that it should be")
    return sources


def _stands_beside(theirs: str, prefix: str, container: Container) -> bool:
    """Say whether a tensor tells of a quantised layer that the file has."""
    layer = next((theirs.removesuffix(suffix) for suffix in _BESIDE if theirs.endswith(suffix)), None)
    return layer is not None and f"{prefix}{layer}.weight" in container.shapes


def _place_level(target: Target, names: list[str]) -> str:
    """Return the target's name with a level of the decoder counted from the highest resolution, as ours are."""
    found = LEVEL.search(target.name)
    if found is None:
        return target.name
    levels = [int(number) for name in names for number in re.findall(r"^decoder\.up_blocks\.(\d{1,6})\.", name)]
    last = max(levels, default=0)
    return LEVEL.sub(str(last - int(found[1])), target.name)


def _check_formats(container: Container) -> None:
    """Refuse number formats of ComfyUI that can't be read, by name."""
    formats: dict[str, Any] = {}
    try:
        if described := container.metadata.get("_quantization_metadata"):
            formats |= {layer: told["format"] for layer, told in json.loads(described)["layers"].items()}
        for name in container.shapes:
            if name.endswith(".comfy_quant"):
                formats[name] = json.loads(bytes(container.read(name).tolist()))["format"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(f"{container.path} describes its number formats in a way that can't be read") from exc
    for name, told in formats.items():
        if told not in _READABLE_FORMATS:
            raise WeightsCorrupt(
                f"{container.path}: {name} is stored as {str(told)[:40]!r}, which can't be read; "
                f"known is {', '.join(_READABLE_FORMATS)}"
            )
