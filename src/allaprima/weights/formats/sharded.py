"""Reads the shards that a safetensors index names as one container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.formats.container import Container, open_container

if TYPE_CHECKING:
    from torch import Tensor

#: Name ending of an index of shards.
INDEX_ENDING = ".safetensors.index.json"


class ShardedContainer:
    """The shards of one index, as one container."""

    def __init__(self, path: Path, shards: Sequence[Container]) -> None:
        """path: the index file. Raises `WeightsCorrupt` when two shards have a tensor of the same name."""
        self.path = path
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


def open_sharded(index: Path) -> ShardedContainer:
    """Open the shards that an index names; they must be in the folder of the index.

    Raises `WeightsMissing` for a shard that does not exist, and `WeightsCorrupt` for an index or a shard that can't be
    read.
    """
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        # Folders in a name are dropped, so that an index can't refer to files outside its folder.
        shards = [index.parent / Path(name).name for name in names]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise WeightsCorrupt(f"{index} is not a readable index of shards") from exc
    for shard in shards:
        if not shard.is_file():
            raise WeightsMissing(f"{index} names the file {shard.name}, which does not exist")
    return ShardedContainer(index, [open_container(shard) for shard in shards])
