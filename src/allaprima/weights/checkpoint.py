"""A checkpoint of FLUX.1 [schnell] as people have it: one file, or a folder of files in any mixture of layouts.

A folder with a `model_index.json` is a diffusers folder, whose parts lie in its subfolders, and what they lack beside
them; any other is looked through as it is. Files are told apart by their tensors (`layouts`). Everything is looked at
before anything large is read, and reading is strict: every tensor that the networks ask for, in its shape and finite,
and no other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from allaprima.errors import WeightsCorrupt, WeightsMissing, WeightsTooLarge, WeightsUnsafe
from allaprima.flux import ModelConfig
from allaprima.weights.catalog import SCHNELL_ID
from allaprima.weights.containers import ENDINGS, Container, ShardedContainer, open_container
from allaprima.weights.layouts import Part
from allaprima.weights.memory import available_bytes
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.parts import PartFile, parts_of
from allaprima.weights.sizes import Unsized, read_config
from allaprima.weights.strict import check_numbers, check_shapes
from allaprima.weights.tokenizer import PromptTokenizer, published_tokenizers

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
#: What dtype the numbers are kept in.
DTYPE = torch.bfloat16
#: Memory beside the weights that painting takes, at least.
WORKING_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint whose parts are all there, in the right shapes, and whose tokenizers have been read."""

    path: Path
    config: ModelConfig
    parts: Mapping[Part, PartFile]
    tokenizers: tuple[PromptTokenizer, PromptTokenizer]

    @property
    def id(self) -> str:
        """The model's id."""
        return SCHNELL_ID

    def load(self, device: str = "cpu") -> Model:
        """Read the networks in bfloat16, a tensor at a time.

        Raises `WeightsCorrupt` naming the file and the tensor at fault, `WeightsTooLarge` when the memory that is free
        would not hold them.
        """
        with torch.device("meta"):
            networks = Networks(self.config)
        _check_memory(self.path, networks, device)
        revision = Revision()
        for part in Part:
            tensors = {}
            network = networks.get_submodule(part.value)
            for name in network.state_dict():
                stored = self.parts[part].read(name)
                check_numbers(self.parts[part].container.path, name, stored)
                tensor = stored.to(DTYPE)
                revision.add(f"{part}.{name}", tensor)
                tensors[name] = tensor.to(device)
            network.load_state_dict(tensors, assign=True)
        networks.requires_grad_(requires_grad=False).eval()
        return Model(self.id, revision.digest(), self.config, networks, *self.tokenizers)


def open_checkpoint(path: Path, tokenizers: Path | None = None) -> CheckpointFiles:
    """Look at a checkpoint without reading its weights.

    tokenizers: folder of the two tokenizers, for a checkpoint that brings none.
    Raises `WeightsMissing` for a part or a tokenizer that is not there, `WeightsUnsafe` where there is only a format
    that runs code, `WeightsCorrupt` naming file and tensor.
    """
    parts: dict[Part, PartFile] = {}
    for containers in _containers(path):
        parts = _parts_in(path, containers) | parts
    if missing := [words for part, words in PART_NAMES.items() if part not in parts]:
        raise WeightsMissing(f"{path} holds no {', no '.join(missing)}; put the missing files into one folder with it")
    config = _config(path, parts)
    return CheckpointFiles(path, config, parts, published_tokenizers(path, tokenizers, config))


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


def _check_memory(path: Path, networks: nn.Module, device: str) -> None:
    needed = sum(tensor.numel() for tensor in networks.state_dict().values()) * DTYPE.itemsize + WORKING_BYTES
    free = available_bytes(device)
    if free is not None and needed > free:
        raise WeightsTooLarge(
            f"{path} needs {needed / 2**30:.1f} GiB of memory in bfloat16, "
            f"and {free / 2**30:.1f} GiB are free on {device}"
        )
