"""Reads the shards of one set of tensors as one container. An index names the shards, or their names number them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.formats.container import Container, open_container

if TYPE_CHECKING:
    from torch import Tensor

#: Name of an index of shards: `model.safetensors.index.json`, or with a variant `model.safetensors.index.fp16.json`.
INDEX_NAME = re.compile(r".+\.safetensors\.index(\.[\w-]+)?\.json", re.IGNORECASE)
#: Name of a shard: `model-00001-of-00002.safetensors`, or with a variant `model.fp16-00001-of-00002.safetensors` or
#: `model-00001-of-00002.fp16.safetensors`.
SHARD_NAME = re.compile(
    r"(?P<start>.+-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>(\.[\w-]+)?\.(safetensors|sft))", re.IGNORECASE
)
#: Largest index in bytes that is read; that of FLUX.1 has 120 kB.
_INDEX_LIMIT = 16 * 2**20
#: Longest name of a file in bytes.
_LONGEST_NAME = 255


class ShardedContainer:
    """The shards of one set, as one container."""

    def __init__(self, path: Path, shards: Sequence[Container]) -> None:
        """path: the index, or the first shard. Raises `WeightsCorrupt` when two shards have a tensor of one name."""
        self.path = path
        self._shards = tuple(shards)
        self.files = tuple(file for shard in shards for file in shard.files)
        self.metadata: Mapping[str, str] = {key: value for shard in shards for key, value in shard.metadata.items()}
        self._shard_of: dict[str, Container] = {}
        for shard in shards:
            if duplicates := self._shard_of.keys() & shard.shapes.keys():
                raise WeightsCorrupt(f"{path}: more than one shard holds the tensor {min(duplicates)}")
            self._shard_of |= dict.fromkeys(shard.shapes, shard)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: shard.shapes[name] for name, shard in self._shard_of.items()
        }
        self.dtypes: Mapping[str, str] = {name: shard.dtypes[name] for name, shard in self._shard_of.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor from its shard. Raises `WeightsCorrupt` naming file and tensor."""
        return self._shard_of[name].read(name)

    def check_ending(self) -> None:
        """Check that no shard ends in zeros. Raises `WeightsCorrupt` naming file and tensor."""
        for shard in self._shards:
            shard.check_ending()


def shards_of_index(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, whether they exist or not; they are in the folder of the index.

    Raises `WeightsCorrupt` for an index that can't be read.
    """
    try:
        if (size := index.stat().st_size) > _INDEX_LIMIT:
            raise WeightsCorrupt(f"{index} has {size} bytes; an index of shards has at most {_INDEX_LIMIT}")
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        # Folders in a name are dropped, so that an index can't refer to files outside its folder.
        return tuple(index.parent / _file_name(name) for name in names)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(f"{index} is not a readable index of shards; download it again") from exc


def _file_name(path: str) -> str:
    """Return the name of a file without its folders. Raises `ValueError` for a text that no file's name can be."""
    name = Path(path).name
    if name in ("", "..") or not name.isprintable() or len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError(name)
    return name


def shards_by_number(shard: Path) -> tuple[Path, ...] | None:
    """Return all files of the set to which a shard's name says it belongs; None for a name that numbers no shard.

    The files need not exist.
    """
    found = SHARD_NAME.fullmatch(shard.name)
    if found is None or not 0 < int(found["number"]) <= int(found["count"]):
        return None
    numbers = range(1, int(found["count"]) + 1)
    return tuple(shard.with_name(f"{found['start']}{one:05}-of-{found['count']}{found['end']}") for one in numbers)


def open_sharded(path: Path, shards: Sequence[Path]) -> ShardedContainer:
    """Open the shards of one set. path: the index, or the first shard of a set without one.

    Raises `WeightsMissing` naming the shards that do not exist, and `WeightsCorrupt` for a shard that can't be read.
    """
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        others = f"; {len(missing) - 1} more are missing" if len(missing) > 1 else ""
        problem = "names the file" if INDEX_NAME.fullmatch(path.name) else f"is one of {len(shards)} shards; so is"
        raise WeightsMissing(f"{path} {problem} {missing[0]}, which does not exist{others}; download the missing files")
    return ShardedContainer(path, [open_container(shard) for shard in shards])
