"""A checkpoint of FLUX.1 [schnell] as people have it: one file, or a folder of files in any mixture of layouts.

A folder with a `model_index.json` is a diffusers folder, whose parts lie in its subfolders, and what they lack concat_into
them; any other is looked through as it is. Files are told apart by their tensors (`layouts`). Everything is looked at
before anything large is read, and reading is strict: every tensor that the networks ask for, in its shape and finite,
and no other.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allaprima.domain.models import SCHNELL_ID, Precision
from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsUnsafe
from allaprima.flux import CancelCheck, ModelConfig, never_cancelled
from allaprima.weights.checkpoint.components import PartFile, parts_of
from allaprima.weights.checkpoint.infer_config import Unsized, read_config
from allaprima.weights.checkpoint.key_maps import Part
from allaprima.weights.checkpoint.validate import check_numbers, check_shapes
from allaprima.weights.formats.containers import ENDINGS, Container, ShardedContainer, open_container
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.packed_cache import PackedForm, Place, Shelf, put_form
from allaprima.weights.paths import pulled_folders
from allaprima.weights.quantize import (
    LINEARS,
    build_networks,
    choose_precision,
    is_short,
    multiplies_bfloat16,
    pack,
    widen,
)
from allaprima.weights.tokenizers import PromptTokenizer, published_tokenizers

logger = logging.getLogger(__name__)

#: What each part is called to people, and a file that has it.
PART_NAMES = {
    Part.TRANSFORMER: "transformer (such as flux1-schnell.safetensors)",
    Part.T5: "T5 text encoder (such as t5xxl_fp16.safetensors)",
    Part.CLIP: "CLIP text encoder (such as clip_l.safetensors)",
    Part.AUTOENCODER: "autoencoder (such as ae.safetensors)",
}
DIFFUSERS_INDEX = "model_index.json"
SHARDS_INDEX = ".safetensors.index.json"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pt2")
#: What dtype the numbers are read in.
DTYPE = torch.bfloat16


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint whose parts are all there, in the right shapes, and whose tokenizers have been read."""

    path: Path
    config: ModelConfig
    parts: Mapping[Part, PartFile]
    tokenizers: tuple[PromptTokenizer, PromptTokenizer]
    #: Where its revision and its packed forms are kept.
    shelf: Shelf

    @property
    def id(self) -> str:
        """The model's id."""
        return SCHNELL_ID

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Read the networks a tensor at a time, or map them where they were packed before.

        precision: None chooses, as `choose_precision` does. Raises `WeightsCorrupt` naming the file and the
        tensor at fault, `WeightsTooLarge` when the memory or the disk that is free would not hold them.
        """
        precision = choose_precision(str(self.path), self.config, precision, device)
        place = self.shelf.place({file for part in self.parts.values() for file in part.container.files})
        networks = build_networks(self.config, precision)
        if precision in LINEARS:
            form = place.packed(precision) or self._pack(networks, place, precision, check)
            put_form(networks, form, device, lends_text=is_short(self.config, precision, device))
            if not multiplies_bfloat16(device):
                widen(networks)
        else:
            self._read_into(networks, place, device, check)
        revision = place.revision
        assert revision is not None
        return Model(self.id, revision, precision, self.config, networks, *self.tokenizers)

    def _read_into(self, networks: Networks, place: Place, device: str, check: CancelCheck) -> None:
        state: dict[str, Tensor] = {}
        for name, tensor in self._tensors(place, check):
            state |= {kept: numbers.to(device) for kept, numbers in pack(networks, name, tensor).items()}
        networks.load_state_dict(state, assign=True)

    def _pack(self, networks: Networks, place: Place, precision: Precision, check: CancelCheck) -> PackedForm:
        nbytes = sum(tensor.nbytes for tensor in networks.state_dict().values())
        logger.info("packing %s as %s into %s, once: this takes minutes", self.path, precision, place.folder)
        with place.packing(precision, nbytes) as packer:
            if packer is not None:
                for name, tensor in self._tensors(place, check):
                    packer.add(pack(networks, name, tensor))
        form = place.packed(precision)
        assert form is not None
        return form

    def _tensors(self, place: Place, check: CancelCheck) -> Iterator[tuple[str, Tensor]]:
        """Read every tensor in bfloat16, by its name in `Networks`; the first time, check them and keep the revision.

        Raises `WeightsCorrupt` naming file and tensor.
        """
        place.prepare()
        is_known = place.revision is not None
        revision = Revision()
        for part in Part:
            source = self.parts[part]
            # In our order: the files' own differs with the layout.
            for name in build_networks(self.config, Precision.BF16).get_submodule(part).state_dict():
                check()
                stored = source.read(name)
                tensor = stored.to(DTYPE)
                if not is_known:
                    check_numbers(source.container.path, name, stored)
                    revision.add(f"{part}.{name}", tensor)
                yield f"{part}.{name}", tensor
        if not is_known:
            place.keep_revision(revision.digest())


def open_checkpoint(path: Path, shelf: Shelf, tokenizers: Path | None = None) -> CheckpointFiles:
    """Look at a checkpoint without reading its weights.

    shelf: where what is worked out from it is kept. tokenizers: folder of the two tokenizers, for a checkpoint that
    brings none; else those of an earlier pull do. Raises `WeightsMissing` for a part or a tokenizer that is not there,
    `WeightsUnsafe` where there is only a format that runs code, `WeightsCorrupt` naming file and tensor.
    """
    parts: dict[Part, PartFile] = {}
    for containers in _containers(path):
        parts = _parts_in(path, containers) | parts
    if missing := [words for part, words in PART_NAMES.items() if part not in parts]:
        raise WeightsMissing(f"{path} holds no {', no '.join(missing)}; put the missing files into one folder with it")
    config = _config(path, parts)
    own = path if path.is_dir() else path.parent
    folders = (tokenizers,) if tokenizers else (own, *pulled_folders(shelf.folder, SCHNELL_ID))
    return CheckpointFiles(path, config, parts, published_tokenizers(folders, config), shelf)


def _parts_in(path: Path, containers: list[Container]) -> dict[Part, PartFile]:
    """Return the parts that files hold, each of which must be there once."""
    parts: dict[Part, PartFile] = {}
    for container in containers:
        for part_file in parts_of(container):
            if (other := parts.get(part_file.part)) is not None:
                raise WeightsCorrupt(
                    f"{path} holds the {part_file.part} twice, in {other.container.path} and {container.path}; "
                    "leave one of them there"
                )
            parts[part_file.part] = part_file
    return parts


def _containers(path: Path) -> list[list[Container]]:
    """Return the files of a checkpoint in groups, the first of which comes before the next where both have a part."""
    if path.is_file():
        return [[open_container(path)]]
    if not path.is_dir():
        raise WeightsMissing(f"there is no file or folder {path}")
    folders = [path]
    found = []
    if (path / DIFFUSERS_INDEX).is_file():
        folders += sorted(folder for folder in path.iterdir() if folder.is_dir())
        found.append([container for folder in folders[1:] for container in _in_folder(folder)])
    found.append(_in_folder(path))
    if not any(found):
        pickles = sorted(file for folder in folders for file in folder.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise WeightsUnsafe(f"{pickles[0]} is a pickle, which runs code when it is opened; {path} has nothing else")
        raise WeightsMissing(f"the folder {path} holds no safetensors or GGUF file")
    return found


def _in_folder(folder: Path) -> list[Container]:
    files = {file for file in folder.iterdir() if file.is_file() and file.name.lower().endswith(ENDINGS)}
    found: list[Container] = []
    for index in sorted(folder.glob(f"*{SHARDS_INDEX}")):
        shards = _shards(index)
        found.append(ShardedContainer(index, [open_container(shard) for shard in shards]))
        files -= set(shards)
    return found + [open_container(file) for file in sorted(files)]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        shards = [index.parent / Path(name).name for name in names]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(f"{index} is not a readable index of shards") from exc
    for shard in shards:
        if not shard.is_file():
            raise WeightsMissing(f"{index} names the file {shard.name}, which is not there")
    return shards


def _config(path: Path, parts: Mapping[Part, PartFile]) -> ModelConfig:
    """Return the configuration that the shapes tell, after every tensor's name and shape was checked against it."""
    if any(name.startswith("guidance_in.") for name in parts[Part.TRANSFORMER].shapes):
        raise WeightsCorrupt(
            f"{parts[Part.TRANSFORMER].container.path} is FLUX.1 [dev], by its guidance_in tensors; "
            "allaprima paints with FLUX.1 [schnell]"
        )
    try:
        config = read_config(*(parts[part].shapes for part in Part))
        with torch.device("meta"):
            networks = Networks(config)
    except Unsized as exc:
        raise WeightsCorrupt(f"{path} lacks the tensor {exc}, or it has another shape") from exc
    except (ValueError, RuntimeError, ZeroDivisionError) as exc:
        raise WeightsCorrupt(f"{path} has tensors whose sizes don't go together: {exc}") from exc
    for part in Part:
        check_shapes(parts[part].container.path, networks.get_submodule(part.value), parts[part].shapes)
    return config
