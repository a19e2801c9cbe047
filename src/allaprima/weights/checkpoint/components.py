"""Reads the tensors of one component from a checkpoint file, by their canonical names.

A canonical tensor that a file stores in several parts is concatenated, one that it stores with others is cut out, and
the halves are swapped where the file's order differs. How layers are quantized is the task of `layer_formats`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allaprima.errors import WeightsCorrupt
from allaprima.weights.checkpoint.key_maps import (
    CHECKPOINT_FORMATS,
    REVERSED_LEVEL,
    CheckpointFormat,
    Component,
)
from allaprima.weights.checkpoint.layer_formats import SCALED_MARKER, LayerFormats
from allaprima.weights.formats.container import Container

if TYPE_CHECKING:
    from torch import Tensor

#: Keys that FLUX's networks don't use, under any prefix: ComfyUI's marker of scaled files and the tokenizer that it
#: stores with T5, and a parameter of the full CLIP model that some files of its text encoder still have.
_IGNORED_KEYS = (SCALED_MARKER, "spiece_model", "logit_scale")
#: Weights of 1x1 convolutions, which diffusers stores as linears, without the last two axes.
_POINTWISE = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")

#: Largest difference of a copy in another number format, as a share of the norm: more than 4 bits lose.
_COPY_LOSS = 0.2
#: Rows that are compared at once, which bounds the memory.
_ROWS = 4096

Shape = tuple[int, ...]


@dataclass(slots=True)
class _Source:
    """The keys whose tensors are the parts of one canonical tensor."""

    #: In the order of concatenation; None for a part that the file lacks.
    keys: list[str | None]
    swaps_halves: bool
    #: The canonical tensor is part `index` of `count` along the rows of the key's tensor.
    index: int = 0
    count: int = 1
    #: A key that stores the same tensor once more.
    copy: str | None = None


class ComponentFile:
    """One component in one file."""

    def __init__(
        self, component: Component, formats: LayerFormats, sources: Mapping[str, _Source], prefix: str
    ) -> None:
        """sources: by canonical name. prefix: the prefix that the file puts before all keys of `sources`.

        Raises `WeightsCorrupt` naming file and tensor when a source is incomplete or the shapes of its parts don't
        match.
        """
        self.component = component
        self.container = formats.container
        self._formats = formats
        self._sources = sources
        self._prefix = prefix
        #: The shapes of the file's tensors, by canonical name.
        self.shapes: Mapping[str, Shape] = {name: self._shape(name, source) for name, source in sources.items()}

    def read(self, name: str) -> Tensor:
        """Return one canonical tensor, on the CPU, in the file's dtype.

        It is in float32 if it is block-quantized or scaled, or if its parts have different dtypes.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        import torch

        source = self._sources[name]
        keys = [f"{self._prefix}{key}" for key in source.keys if key is not None]
        chunks = [self._formats.read(key) for key in keys]
        if len({chunk.dtype for chunk in chunks}) > 1:
            chunks = [self._in_float32(key, chunk) for key, chunk in zip(keys, chunks, strict=True)]
        if source.swaps_halves:
            chunks = [half for chunk in chunks for half in reversed(chunk.chunk(2))]
        whole = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
        if source.count > 1:
            whole = whole.chunk(source.count)[source.index].clone()
        if source.copy is not None:
            self._check_copy(source.copy, source.keys[0], whole)
        return whole.reshape(self.shapes[name])

    def _in_float32(self, key: str, chunk: Tensor) -> Tensor:
        """Return a part of a tensor whose parts have different dtypes. Raises `WeightsCorrupt` for integers."""
        if not chunk.is_floating_point():
            raise WeightsCorrupt(
                f"{self.container.path}: {key} is stored as {self.container.dtypes[key]}; weights are floating-point"
            )
        return chunk.float()

    def _check_copy(self, copy: str, key: str | None, original: Tensor) -> None:
        """Check that a copy has the values of its original. Copies in another number format differ by its loss.

        Raises `WeightsCorrupt` naming both.
        """
        names = [f"{self._prefix}{one}" for one in (key, copy)]
        stored = self._formats.read(names[1])
        pieces = zip(original.split(_ROWS), stored.split(_ROWS), strict=True)
        if len({self.container.dtypes[one] for one in names}) == 1:
            is_equal = all(_are_same_bits(ours, theirs) for ours, theirs in pieces)
        else:
            norms = [(float((one.float() - other.float()).norm()), float(one.float().norm())) for one, other in pieces]
            loss, norm = (math.hypot(*values) for values in zip(*norms, strict=True))
            is_equal = loss <= _COPY_LOSS * norm
        if not is_equal:
            raise WeightsCorrupt(
                f"{self.container.path}: the tensors {names[0]} and {names[1]} are one tensor of the model, but have "
                "different values; take another file"
            )

    def _shape(self, name: str, source: _Source) -> Shape:
        if None in source.keys:
            missing = source.keys.index(None)
            raise WeightsCorrupt(
                f"{self.container.path} lacks part {missing + 1} of {len(source.keys)} of the tensor {name}"
            )
        shapes = [self._formats.shape(f"{self._prefix}{key}") for key in source.keys]
        if any(shape[1:] != shapes[0][1:] or not shape for shape in shapes) and len(shapes) > 1:
            raise WeightsCorrupt(f"{self.container.path}: the parts of the tensor {name} do not fit: {shapes}")
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        if source.count > 1:
            if not whole or whole[0] % source.count:
                raise WeightsCorrupt(
                    f"{self.container.path}: the tensor {self._prefix}{source.keys[0]} has the shape {whole}, which is "
                    f"not {source.count} parts"
                )
            whole = (whole[0] // source.count, *whole[1:])
        return (*whole, 1, 1) if _POINTWISE.search(name) and len(whole) == 2 else whole


def _are_same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape are equal. torch does not compare float8, and no NaN with itself."""
    import torch

    return one.dtype == other.dtype and bool((one.view(torch.uint8) == other.view(torch.uint8)).all())


def components_in(container: Container) -> list[ComponentFile]:
    """Return all components in a file; an empty list for a file without tensors of FLUX.

    Raises `WeightsCorrupt` for a tensor that belongs to no component, for a component that the file holds twice, for an
    unsupported number format, and for a file that ends in zeros.
    """
    names = set(container.shapes)
    found = _formats_in(container)
    if not found:
        return []
    container.check_ending()
    formats = LayerFormats(container)
    components = []
    remaining = {name for name in names if name.rpartition(".")[2] not in _IGNORED_KEYS}
    # Longest prefix first: a component without a prefix matches all remaining names.
    found.sort(key=lambda one: len(one[1]), reverse=True)
    for checkpoint_format, prefix in found:
        keys = sorted(name.removeprefix(prefix) for name in remaining if name.startswith(prefix))
        formats.check_scales(prefix, keys)
        sources = _sources(formats, checkpoint_format, prefix, keys)
        components.append(ComponentFile(checkpoint_format.component, formats, sources, prefix))
        remaining -= {prefix + key for key in keys}
    if remaining:
        raise WeightsCorrupt(f"{container.path} has the unexpected tensor {min(remaining)} ({len(remaining)} in all)")
    return components


def _formats_in(container: Container) -> list[tuple[CheckpointFormat, str]]:
    """Return the format and the prefix of each component in a file.

    Raises `WeightsCorrupt` naming both prefixes for a file that holds a component twice, such as a model and its moving
    average.
    """
    found: dict[Component, tuple[CheckpointFormat, str]] = {}
    for known in CHECKPOINT_FORMATS:
        for prefix in known.prefixes_in(container.shapes):
            _, other = found.setdefault(known.component, (known, prefix))
            if other != prefix:
                first, second = sorted((other, prefix))
                raise WeightsCorrupt(
                    f"{container.path} holds the {known.component} twice, under the prefixes {first!r} and {second!r}; "
                    "use a file with one of them"
                )
    return list(found.values())


def _sources(
    formats: LayerFormats, checkpoint_format: CheckpointFormat, prefix: str, keys: list[str]
) -> dict[str, _Source]:
    """Return the sources of a component's tensors, by canonical name."""
    sources: dict[str, _Source] = {}
    copies: dict[str, str] = {}
    for key in keys:
        if checkpoint_format.is_unused(key) or formats.is_quantization(prefix + key):
            continue
        unexpected = WeightsCorrupt(f"{formats.container.path} has the unexpected tensor {prefix}{key}")
        target = checkpoint_format.target(key)
        if target is None:
            raise unexpected
        if target.is_copy:
            copies[target.name] = key
            continue
        for index, fused in enumerate(target.fused or (target.name,)):
            empty = _Source([None] * target.count, target.swaps_halves, index, max(1, len(target.fused)))
            source = sources.setdefault(_canonical_level(fused, keys), empty)
            if source.keys[target.index] is not None:
                raise unexpected
            source.keys[target.index] = key
    for name, key in copies.items():
        source = sources.setdefault(name, _Source([key], swaps_halves=False))
        original = source.keys[0]
        if formats.shape(f"{prefix}{original}") != formats.shape(prefix + key):
            raise WeightsCorrupt(
                f"{formats.container.path}: {prefix}{key} should be a copy of {original}, but has another shape"
            )
        source.copy = key if key != original else None
    return sources


def _canonical_level(name: str, keys: list[str]) -> str:
    """Return a canonical name which the decoder's resolutions are numbered from the highest."""
    found = REVERSED_LEVEL.search(name)
    if found is None:
        return name
    levels = [int(number) for key in keys for number in re.findall(r"^decoder\.up_blocks\.(\d{1,6})\.", key)]
    last = max(levels, default=0)
    return REVERSED_LEVEL.sub(str(last - int(found[1])), name)
