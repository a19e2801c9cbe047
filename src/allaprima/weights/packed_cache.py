"""The packed-weight cache: stores a checkpoint's revision and its quantized weights on disk for the next start.

The key of a checkpoint's entry is a hash of the path, size and modification time of all its files, so changed files are
read again. Packed weights are a folder of safetensors files, one for each block and one for each block's modulations,
in the memory layout of the kernels. They are memory-mapped: a start takes seconds, and unused weights occupy no memory.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt, WeightsError, WeightsTooLarge
from allaprima.kernels import LAYOUT
from allaprima.weights.networks import Networks
from allaprima.weights.offload import is_streamed, stream_weights
from allaprima.weights.quantize import is_modulation

logger = logging.getLogger(__name__)

SOURCES_FILE, REVISION_FILE, INDEX_FILE = "sources.json", "revision", "index.json"
#: Name ending of an incomplete folder or file.
UNFINISHED = ".part"
_BLOCK = re.compile(r"transformer\.(double|single)_blocks\.\d+|t5\.encoder\.block\.\d+")


class PackedWeightCache:
    """A folder of entries, one for each checkpoint that has been loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, files: Iterable[Path]) -> "CacheEntry":
        """Return the entry of the checkpoint that consists of these files in their current state."""
        sources = sorted(_fingerprint(file) for file in files)
        key = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]
        return CacheEntry(self.folder / "packed" / key, sources)


def _fingerprint(file: Path) -> tuple[str, int, int]:
    """Return a file's absolute path, its size in bytes and its modification time in nanoseconds."""
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


class CacheEntry:
    """The cache entry of one checkpoint: its revision, and its packed weights in each precision used so far."""

    def __init__(self, folder: Path, sources: Sequence[tuple[str, int, int]]) -> None:
        """sources: path, size in bytes and modification time in nanoseconds of each file of the checkpoint."""
        self.folder = folder
        self._sources = sources

    @property
    def revision(self) -> str | None:
        """The revision of the checkpoint, or None if its files have not been read and validated yet."""
        file = self.folder / REVISION_FILE
        return file.read_text("ascii").strip() if file.is_file() else None

    def prepare(self) -> None:
        """Create the entry's folder and record the checkpoint's files. Raises `WeightsError` if it can't be written."""
        with self._translate_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / SOURCES_FILE).write_text(json.dumps(self._sources, indent=1))

    def save_revision(self, revision: str) -> None:
        """Record that all files were read and validated. Raises `WeightsError` if it can't be written."""
        with self._translate_errors():
            unfinished = self.folder / f"{REVISION_FILE}.{os.getpid()}{UNFINISHED}"
            unfinished.write_text(f"{revision}\n", "ascii")
            unfinished.replace(self.folder / REVISION_FILE)

    def packed_weights(self, precision: Precision) -> "PackedWeights | None":
        """Return the packed weights in a precision, or None if there are none yet."""
        folder = self._packed_folder(precision)
        return PackedWeights(folder) if folder.is_dir() else None

    @contextmanager
    def writing_packed(self, precision: Precision, nbytes: int) -> Iterator["PackedWriter | None"]:
        """Return a context that writes `nbytes` bytes of packed weights in a precision.

        Its value is None if another process has written them in the meantime. The weights are available after the
        context ends without an error; an error discards them. Raises `WeightsTooLarge` when the disk has too little
        space, and `WeightsError` when the folder can't be written.
        """
        self.prepare()
        folder = self._packed_folder(precision)
        unfinished = folder.with_name(folder.name + UNFINISHED)
        with self._translate_errors(), FileLock(self.folder / f"{folder.name}.lock"):
            if folder.is_dir():
                yield None
                return
            shutil.rmtree(unfinished, ignore_errors=True)
            _check_disk(self.folder, nbytes)
            unfinished.mkdir()
            writer = PackedWriter(unfinished)
            try:
                yield writer
                writer.finish()
            except BaseException:
                # Incomplete weights can occupy many gigabytes and are of no use.
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            # The rename marks the folder as complete, so its files must be on the disk before it.
            os.sync()
            unfinished.rename(folder)
            # Folders of the same precision with another kernel layout are obsolete.
            for older in self.folder.glob(f"{precision}-*/"):
                if older != folder:
                    shutil.rmtree(older, ignore_errors=True)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as exc:
            raise WeightsError(
                f"{self.folder} can't be written ({exc}); set ALLAPRIMA_ENGINE__WEIGHTS_DIR to another folder"
            ) from exc

    def _packed_folder(self, precision: Precision) -> Path:
        return self.folder / f"{precision}-{LAYOUT}"


class PackedWriter:
    """Writes packed weights. The caller adds tensors in the order of `Networks.state_dict`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._section = ""
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._names: dict[str, str] = {}

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Add the packed tensors of one tensor of the checkpoint. At most one block is buffered in memory."""
        for name, tensor in tensors.items():
            section = _section(name)
            if section != self._section:
                self._write()
                self._section = section
            file = f"{section}{'.modulation' if is_modulation(name) else ''}.safetensors"
            self._names[name] = file
            self._pending.setdefault(file, {})[name] = tensor.contiguous()

    def finish(self) -> None:
        """Write the buffered tensors, and the index, which maps each tensor to its file."""
        self._write()
        (self._folder / INDEX_FILE).write_text(json.dumps(self._names, indent=1))

    def _write(self) -> None:
        for file, tensors in self._pending.items():
            save_file(tensors, self._folder / file)
        self._pending = {}


class PackedWeights:
    """A complete folder of packed weights."""

    def __init__(self, folder: Path) -> None:
        """Raises `WeightsCorrupt` when the index is damaged."""
        self.folder = folder
        try:
            self._file_of: dict[str, str] = dict(json.loads((folder / INDEX_FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as exc:
            raise self._damaged(INDEX_FILE, str(exc)) from exc

    def read(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return memory-mapped tensors by name. A file is unmapped when the last of its tensors is freed.

        expected: a tensor of the expected shape and dtype for each name. Raises `WeightsCorrupt` when a tensor is
        missing or differs in shape or dtype.
        """
        tensors: dict[str, Tensor] = {}
        for file in sorted({self._file_of.get(name, INDEX_FILE) for name in expected}):
            tensors |= self._read(file)
        for name, like in expected.items():
            if name not in tensors or (tensors[name].shape, tensors[name].dtype) != (like.shape, like.dtype):
                raise self._damaged(
                    self._file_of.get(name, INDEX_FILE), f"{name} has another shape or dtype than the model"
                )
        return {name: tensors[name] for name in expected}

    def _read(self, file: str) -> dict[str, Tensor]:
        try:
            with safe_open(self.folder / file, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as exc:
            raise self._damaged(file, str(exc)) from exc

    def _damaged(self, file: str, reason: str) -> WeightsCorrupt:
        return WeightsCorrupt(
            f"{self.folder / file} is damaged ({reason}); remove the folder {self.folder}, "
            "and the next start rebuilds it"
        )


def load_packed(networks: Networks, packed: PackedWeights, device: str, *, stream_text: bool) -> None:
    """Load packed weights into networks on the meta device.

    On a CPU the linears of the modulations, and of T5 if `stream_text`, are memory-mapped for each forward pass and
    released after it (see `offload`). Raises `WeightsCorrupt` when the packed weights are damaged.
    """
    resident = networks.state_dict()
    for name, module in networks.named_modules():
        if is_streamed(name, module, device, stream_text=stream_text):
            stream_weights(module, name, packed.read)
            resident = {other: tensor for other, tensor in resident.items() if not other.startswith(f"{name}.")}
    tensors = {name: tensor.to(device) for name, tensor in packed.read(resident).items()}
    networks.load_state_dict(tensors, strict=False, assign=True)


def _section(name: str) -> str:
    """Return the name of the group of tensors that is written to one file: a block, or a module outside the blocks."""
    block = _BLOCK.match(name)
    return block[0] if block else ".".join(name.split(".")[:2])


def _check_disk(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise WeightsTooLarge(
            f"the packed weights need {nbytes / 2**30:.1f} GiB of disk, and {folder} has {free / 2**30:.1f} GiB free; "
            "set ALLAPRIMA_ENGINE__WEIGHTS_DIR to another folder"
        )
