"""Loads a checkpoint of FLUX.1 [schnell]: a file or a folder, in any mixture of checkpoint formats.

`inventory` decides which files make up the checkpoint, and recognises a file's component and format by the names of its
tensors (`key_maps`). The loader validates all names and shapes before it reads any weights. Validation is strict: the
files must have exactly the tensors of the networks, in their shapes, with finite values.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.domain.models import SCHNELL_ID, Precision
from allaprima.errors import WeightsCorrupt
from allaprima.flux import (
    Autoencoder,
    CancelCheck,
    CLIPTextEncoder,
    Flux,
    ModelConfig,
    T5Encoder,
    meta_device,
    never_cancelled,
)
from allaprima.weights.checkpoint.components import ComponentFile
from allaprima.weights.checkpoint.infer_config import InvalidSizes, infer_config
from allaprima.weights.checkpoint.inventory import Inventory, take_inventory
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.checkpoint.validate import check_shapes, check_values
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.packed_cache import CacheEntry, PackedWeightCache, PackedWeights, load_packed
from allaprima.weights.paths import UnusedFile, pulled_folders
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

#: Most unused files that the log names; `allaprima doctor PATH` lists all.
_LOGGED = 8
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
    #: The model's id.
    id: str = SCHNELL_ID
    unused: tuple[UnusedFile, ...] = ()

    @property
    def own_id(self) -> str:
        """The id of the model in the catalog."""
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
                    # After the conversion, in which a large value of float32 or float64 becomes infinite.
                    check_values(source.container.path, name, tensor if stored.is_floating_point() else stored)
                    revision.add(f"{component}.{name}", tensor)
                yield f"{component}.{name}", tensor
        if not is_known:
            entry.save_revision(revision.digest())


def open_checkpoint(
    path: Path, cache: PackedWeightCache, tokenizers: Path | None = None, model_id: str = SCHNELL_ID
) -> CheckpointFiles:
    """Validate a checkpoint's names and shapes without reading its weights, and log which files it uses.

    tokenizers: folder of the two tokenizers; None: the checkpoint's own, or the package's. model_id: the id that the
    model gets.
    Raises `WeightsMissing` for a missing component or tokenizer, `WeightsUnsafe` when all files are in a format that
    executes code, and `WeightsCorrupt` naming file and tensor.
    """
    inventory = take_inventory(path, pulled_folders(cache.folder, SCHNELL_ID))
    if inventory.error is not None:
        raise inventory.error
    components = inventory.components
    config = validated_config(components)
    sources = find_tokenizers(tokenizers, inventory.folders, components[Component.T5].container, inventory.pulled)
    loaded = sources.load(config)
    _log(inventory)
    logger.info("tokenizers of %s: %s", model_id, sources)
    return CheckpointFiles(path, config, components, loaded, cache, model_id, inventory.unused)


def _log(inventory: Inventory) -> None:
    """Log the files that complete the model from elsewhere, and the files that are not used."""
    for component, source in inventory.components.items():
        if not source.container.path.is_relative_to(inventory.path):
            logger.info("%s: the %s is that of %s", inventory.path, component, source.container.path)
    unused = inventory.unused
    for file in unused[:_LOGGED]:
        logger.warning("not used: %s: %s", file.path, file.reason)
    if len(unused) > _LOGGED:
        logger.warning(
            "not used: %d more files; `allaprima doctor %s` lists them", len(unused) - _LOGGED, inventory.path
        )


def validated_config(components: Mapping[Component, ComponentFile]) -> ModelConfig:
    """Infer the configuration from the shapes, validate all names and shapes against it, and return it.

    Raises `WeightsCorrupt` naming file and tensor.
    """
    try:
        config = infer_config({component: file.shapes for component, file in components.items()})
    except InvalidSizes as exc:
        raise WeightsCorrupt(f"{components[exc.component].container.path} {exc}") from exc
    networks: tuple[tuple[Component, Callable[[], nn.Module]], ...] = (
        (Component.TRANSFORMER, partial(Flux, config.transformer)),
        (Component.T5, partial(T5Encoder, config.t5)),
        (Component.CLIP, partial(CLIPTextEncoder, config.clip)),
        (Component.AUTOENCODER, partial(Autoencoder, config.autoencoder)),
    )
    for component, build in networks:
        path = components[component].container.path
        try:
            with meta_device():
                network = build()
        except (ValueError, RuntimeError, ZeroDivisionError) as exc:
            raise WeightsCorrupt(f"{path} has tensors with inconsistent sizes: {exc}") from exc
        check_shapes(path, network, components[component].shapes)
    return config
