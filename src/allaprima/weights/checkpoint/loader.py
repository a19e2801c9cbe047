"""Loads a checkpoint of FLUX.1 [schnell]: one file, or a folder of files in any mixture of checkpoint formats.

A folder with a `model_index.json` is a diffusers folder: the loader reads components from its subfolders, and
components that these lack from the folder itself. In any other folder the loader reads all files. It recognises a
file's component and format by the names of its tensors (`key_maps`). It validates all names and shapes before it reads
any weights. Validation is strict: the files must have exactly the tensors of the networks, in their shapes, with finite
values.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allaprima.domain.models import SCHNELL_ID, Precision
from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsUnsafe
from allaprima.flux import CancelCheck, ModelConfig, meta_device, never_cancelled
from allaprima.weights.checkpoint.components import ComponentFile, components_in
from allaprima.weights.checkpoint.infer_config import MissingDimension, infer_config
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.checkpoint.validate import check_shapes, check_values
from allaprima.weights.formats.container import Container, open_container
from allaprima.weights.formats.sharded import INDEX_ENDING, open_sharded
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.packed_cache import CacheEntry, PackedWeightCache, PackedWeights, load_packed
from allaprima.weights.paths import WEIGHT_ENDINGS, tokenizer_folders
from allaprima.weights.quantize import (
    LINEARS,
    build_networks,
    choose_precision,
    is_memory_short,
    multiplies_bfloat16,
    pack,
    widen,
)
from allaprima.weights.tokenizers import PromptTokenizer, find_tokenizers

logger = logging.getLogger(__name__)

#: The name of each component in messages, with an example of a file.
_COMPONENT_NAMES = {
    Component.TRANSFORMER: "transformer (such as flux1-schnell.safetensors)",
    Component.T5: "T5 text encoder (such as t5xxl_fp16.safetensors)",
    Component.CLIP: "CLIP text encoder (such as clip_l.safetensors)",
    Component.AUTOENCODER: "autoencoder (such as ae.safetensors)",
}
_DIFFUSERS_INDEX = "model_index.json"
_PICKLE_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".pt2")
#: The dtype from which weights are packed, and over which the revision is computed.
_DTYPE = torch.bfloat16


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint whose components are complete, whose shapes are validated, and whose tokenizers are loaded."""

    path: Path
    config: ModelConfig
    components: Mapping[Component, ComponentFile]
    #: T5's and CLIP's tokenizers.
    tokenizers: tuple[PromptTokenizer, PromptTokenizer]
    cache: PackedWeightCache

    @property
    def id(self) -> str:
        """The model's id."""
        return SCHNELL_ID

    @property
    def reader(self) -> None:
        """FLUX reads prompts as they are."""
        return None

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Load the networks. The first load in a quantized precision packs the weights into the cache.

        precision: None means the choice of `choose_precision`. check: called before each tensor that is read. Raises
        `WeightsCorrupt` naming the damaged file and tensor, `WeightsTooLarge` when free memory or disk space is too
        small, and any exception of `check`.
        """
        precision = choose_precision(str(self.path), self.config, precision, device)
        entry = self.cache.entry({file for one in self.components.values() for file in one.container.files})
        networks = build_networks(self.config, precision)
        if precision in LINEARS:
            packed = entry.packed_weights(precision) or self._pack(networks, entry, precision, check)
            load_packed(networks, packed, device, stream_text=is_memory_short(self.config, precision, device))
            if not multiplies_bfloat16(device):
                widen(networks)
        else:
            self._read_into(networks, entry, device, check)
        revision = entry.revision
        assert revision is not None
        return Model(self.id, revision, precision, self.config, networks, *self.tokenizers)

    def _read_into(self, networks: Networks, entry: CacheEntry, device: str, check: CancelCheck) -> None:
        state: dict[str, Tensor] = {}
        for name, tensor in self._tensors(entry, check):
            state |= {leaf: values.to(device) for leaf, values in pack(networks, name, tensor).items()}
        networks.load_state_dict(state, assign=True)

    def _pack(self, networks: Networks, entry: CacheEntry, precision: Precision, check: CancelCheck) -> PackedWeights:
        nbytes = sum(tensor.nbytes for tensor in networks.state_dict().values())
        logger.info("packing %s in %s into %s; this takes minutes, once", self.path, precision, entry.folder)
        with entry.writing_packed(precision, nbytes) as writer:
            if writer is not None:
                for name, tensor in self._tensors(entry, check):
                    writer.add(pack(networks, name, tensor))
        packed = entry.packed_weights(precision)
        assert packed is not None
        return packed

    def _tensors(self, entry: CacheEntry, check: CancelCheck) -> Iterator[tuple[str, Tensor]]:
        """Yield all tensors in bfloat16 with their names in `Networks`.

        If the cache has no revision yet, the tensors' values are validated and the revision is saved at the end. Raises
        `WeightsCorrupt` naming file and tensor.
        """
        entry.prepare()
        is_known = entry.revision is not None
        revision = Revision()
        for component in Component:
            source = self.components[component]
            # The revision needs a fixed order of tensors; the order in the files depends on the checkpoint format.
            for name in build_networks(self.config, Precision.BF16).get_submodule(component).state_dict():
                check()
                stored = source.read(name)
                tensor = stored.to(_DTYPE)
                if not is_known:
                    check_values(source.container.path, name, stored)
                    revision.add(f"{component}.{name}", tensor)
                yield f"{component}.{name}", tensor
        if not is_known:
            entry.save_revision(revision.digest())


def open_checkpoint(path: Path, cache: PackedWeightCache, tokenizers: Path | None = None) -> CheckpointFiles:
    """Validate a checkpoint's names and shapes without reading its weights, and log which tokenizers it uses.

    tokenizers: folder of the two tokenizers; None: the checkpoint's own, those of an earlier pull, or the package's.
    Raises `WeightsMissing` for a missing component or tokenizer, `WeightsUnsafe` when all files are in a format that
    executes code, and `WeightsCorrupt` naming file and tensor.
    """
    components: dict[Component, ComponentFile] = {}
    for containers in _container_groups(path):
        components = _find_components(path, containers) | components
    if missing := [name for component, name in _COMPONENT_NAMES.items() if component not in components]:
        raise WeightsMissing(f"{path} holds no {', no '.join(missing)}; put all files of the model into one folder")
    config = _validated_config(path, components)
    folders = tokenizer_folders(path, cache.folder, SCHNELL_ID)
    sources = find_tokenizers(tokenizers, folders, components[Component.T5].container)
    loaded = sources.load(config)
    logger.info("tokenizers of %s: %s", SCHNELL_ID, sources)
    return CheckpointFiles(path, config, components, loaded, cache)


def _find_components(path: Path, containers: list[Container]) -> dict[Component, ComponentFile]:
    """Return the components in a group of files. Raises `WeightsCorrupt` when two files have the same component."""
    components: dict[Component, ComponentFile] = {}
    for container in containers:
        for found in components_in(container):
            if (other := components.get(found.component)) is not None:
                raise WeightsCorrupt(
                    f"{path} holds the {found.component} twice, in {other.container.path} and {container.path}; "
                    "keep only one of them in the folder"
                )
            components[found.component] = found
    return components


def _container_groups(path: Path) -> list[list[Container]]:
    """Return the files of a checkpoint in groups. A component in an earlier group overrides those in later groups."""
    if path.is_file():
        return [[open_container(path)]]
    if not path.is_dir():
        raise WeightsMissing(f"there is no file or folder {path}")
    groups = []
    subfolders: list[Path] = []
    if (path / _DIFFUSERS_INDEX).is_file():
        subfolders = sorted(folder for folder in path.iterdir() if folder.is_dir())
        groups.append([container for folder in subfolders for container in _containers_in(folder)])
    groups.append(_containers_in(path))
    if not any(groups):
        folders = (path, *subfolders)
        pickles = sorted(file for folder in folders for file in folder.iterdir() if file.suffix in _PICKLE_ENDINGS)
        if pickles:
            raise WeightsUnsafe(
                f"{pickles[0]} is a pickle, which runs code when it is opened; {path} has no other weights"
            )
        raise WeightsMissing(f"the folder {path} holds no safetensors or GGUF file")
    return groups


def _containers_in(folder: Path) -> list[Container]:
    files = {file for file in folder.iterdir() if file.is_file() and file.name.lower().endswith(WEIGHT_ENDINGS)}
    containers: list[Container] = []
    for index in sorted(folder.glob(f"*{INDEX_ENDING}")):
        sharded = open_sharded(index)
        containers.append(sharded)
        files -= set(sharded.files)
    return containers + [open_container(file) for file in sorted(files)]


def _validated_config(path: Path, components: Mapping[Component, ComponentFile]) -> ModelConfig:
    """Infer the configuration from the shapes, validate all names and shapes against it, and return it."""
    transformer = components[Component.TRANSFORMER]
    if any(name.startswith("guidance_in.") for name in transformer.shapes):
        raise WeightsCorrupt(
            f"{transformer.container.path} is FLUX.1 [dev], since it has guidance_in tensors; "
            "allaprima supports FLUX.1 [schnell]"
        )
    try:
        config = infer_config(*(components[component].shapes for component in Component))
        with meta_device():
            networks = Networks(config)
    except MissingDimension as exc:
        raise WeightsCorrupt(f"{path} lacks the tensor {exc}, or it has another shape") from exc
    except (ValueError, RuntimeError, ZeroDivisionError) as exc:
        raise WeightsCorrupt(f"{path} has tensors with inconsistent sizes: {exc}") from exc
    for component in Component:
        source = components[component]
        check_shapes(source.container.path, networks.get_submodule(component.value), source.shapes)
    return config
