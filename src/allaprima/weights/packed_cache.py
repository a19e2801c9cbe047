"""What was worked out from a checkpoint's files, kept for the next start: their revision, and their packed form.

A shelf is a folder. A checkpoint has a place on it by the path, size and time of change of every file of it, so that
files that were changed are read anew. A packed form is a folder of safetensors files, one for each block and one for
each block's modulations, in the layout that the kernels multiply; they are mapped, so that a start takes seconds and
what is not used takes no memory.
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
from allaprima.kernels import LAYOUT, QuantizedLinear
from allaprima.weights.networks import Networks
from allaprima.weights.quantize import is_modulation, is_text

logger = logging.getLogger(__name__)

SOURCES_FILE, REVISION_FILE, INDEX_FILE = "sources.json", "revision", "index.json"
#: A packed form's files are written into a folder of this ending until they are all there.
UNFINISHED = ".part"
_BLOCK = re.compile(r"transformer\.(double|single)_blocks\.\d+|t5\.encoder\.block\.\d+")


class Shelf:
    """A folder of places, one for each checkpoint that was loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, files: Iterable[Path]) -> "Place":
        """Return the place of a checkpoint, by its files as they are now."""
        sources = sorted((str(file.resolve()), (told := file.stat()).st_size, told.st_mtime_ns) for file in files)
        key = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]
        return Place(self.folder / "packed" / key, sources)


class Place:
    """What a shelf keeps of one checkpoint."""

    def __init__(self, folder: Path, sources: Sequence[tuple[str, int, int]]) -> None:
        self.folder = folder
        self._sources = sources

    @property
    def revision(self) -> str | None:
        """The revision of the files, if they were all read before and found sound."""
        file = self.folder / REVISION_FILE
        return file.read_text("ascii").strip() if file.is_file() else None

    def prepare(self) -> None:
        """Make the place's folder, and tell in it whose it is. Raises `WeightsError` where it can't be written."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / SOURCES_FILE).write_text(json.dumps(self._sources, indent=1))

    def keep_revision(self, revision: str) -> None:
        """Remember that the files were all read and found sound. Raises `WeightsError` where it can't be written."""
        with self._writing():
            unfinished = self.folder / f"{REVISION_FILE}.{os.getpid()}{UNFINISHED}"
            unfinished.write_text(f"{revision}\n", "ascii")
            unfinished.replace(self.folder / REVISION_FILE)

    def packed(self, precision: Precision) -> "PackedForm | None":
        """Return the packed form in a precision, if it was written before."""
        folder = self._form_folder(precision)
        return PackedForm(folder) if folder.is_dir() else None

    @contextmanager
    def packing(self, precision: Precision, nbytes: int) -> Iterator["Packer | None"]:
        """Write the packed form in a precision, of so many bytes; None where another process has just done so.

        What was written is there when the context ends without an error. Raises `WeightsTooLarge` when the disk has
        not that much room, `WeightsError` when it can't be written.
        """
        self.prepare()
        folder = self._form_folder(precision)
        unfinished = folder.with_name(folder.name + UNFINISHED)
        with self._writing(), FileLock(self.folder / f"{folder.name}.lock"):
            if folder.is_dir():
                yield None
                return
            shutil.rmtree(unfinished, ignore_errors=True)
            _check_disk(self.folder, nbytes)
            unfinished.mkdir()
            packer = Packer(unfinished)
            try:
                yield packer
                packer.finish()
            except BaseException:
                # It would be many gigabytes of nothing.
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            # What a power cut could take must be on the disk before the name says that it is all there.
            os.sync()
            unfinished.rename(folder)
            for older in self.folder.glob(f"{precision}-*/"):
                if older != folder:
                    shutil.rmtree(older, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as exc:
            raise WeightsError(
                f"{self.folder} can't be written ({exc}); name another folder with ALLAPRIMA_ENGINE__WEIGHTS_DIR"
            ) from exc

    def _form_folder(self, precision: Precision) -> Path:
        return self.folder / f"{precision}-{LAYOUT}"


class Packer:
    """Writes a packed form, one tensor after another, in the order of `Networks.state_dict`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._section = ""
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._names: dict[str, str] = {}

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Take in what the networks keep of one tensor; no more than one block's are held at a time."""
        for name, tensor in tensors.items():
            section = _section(name)
            if section != self._section:
                self._write()
                self._section = section
            file = f"{section}{'.modulation' if is_modulation(name) else ''}.safetensors"
            self._names[name] = file
            self._pending.setdefault(file, {})[name] = tensor.contiguous()

    def finish(self) -> None:
        """Write what is still held, and which file has which tensor."""
        self._write()
        (self._folder / INDEX_FILE).write_text(json.dumps(self._names, indent=1))

    def _write(self) -> None:
        for file, tensors in self._pending.items():
            save_file(tensors, self._folder / file)
        self._pending = {}


class PackedForm:
    """A packed form that is all there."""

    def __init__(self, folder: Path) -> None:
        """Raises `WeightsCorrupt` when its index is not as it was written."""
        self.folder = folder
        try:
            self._homes: dict[str, str] = dict(json.loads((folder / INDEX_FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as exc:
            raise self._damaged(INDEX_FILE, str(exc)) from exc

    def read(self, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by name, mapped, and let go with the last of each file.

        wanted: tensors of the same shapes and dtypes. Raises `WeightsCorrupt` where the form has others.
        """
        tensors: dict[str, Tensor] = {}
        for file in sorted({self._homes.get(name, INDEX_FILE) for name in wanted}):
            tensors |= self._read(file)
        for name, like in wanted.items():
            if name not in tensors or (tensors[name].shape, tensors[name].dtype) != (like.shape, like.dtype):
                raise self._damaged(self._homes.get(name, INDEX_FILE), f"{name} is not what its model has")
        return {name: tensors[name] for name in wanted}

    def _read(self, file: str) -> dict[str, Tensor]:
        try:
            with safe_open(self.folder / file, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as exc:
            raise self._damaged(file, str(exc)) from exc

    def _damaged(self, file: str, why: str) -> WeightsCorrupt:
        return WeightsCorrupt(
            f"{self.folder / file} is not as it was written ({why}); remove the folder {self.folder}, "
            "and it will be made anew"
        )


def put_form(networks: Networks, form: PackedForm, device: str, *, lends_text: bool) -> None:
    """Put a packed form into networks that have no numbers yet.

    On a CPU the modulations' linears are lent: mapped by each of them when it is asked, and let go with its answer.
    With `lends_text` so are T5's. What is let go stays in the system's file cache for as long as nobody else needs the
    room: asking again costs little where memory is plenty, and memory is there where it is not.
    Raises `WeightsCorrupt` for a form that was damaged.
    """
    wanted = networks.state_dict()
    for name, module in networks.named_modules():
        is_lent = is_modulation(name) or (lends_text and is_text(name))
        if device == "cpu" and is_lent and isinstance(module, QuantizedLinear):
            _lend(module, name, form)
            wanted = {other: tensor for other, tensor in wanted.items() if not other.startswith(f"{name}.")}
    tensors = {name: tensor.to(device) for name, tensor in form.read(wanted).items()}
    networks.load_state_dict(tensors, strict=False, assign=True)


def _lend(module: QuantizedLinear, name: str, form: PackedForm) -> None:
    """Have a linear's numbers mapped before each of its passes, and let go after."""
    empty = dict(module.state_dict())

    def take(*_: object) -> None:
        tensors = form.read({f"{name}.{leaf}": tensor for leaf, tensor in empty.items()})
        module.load_state_dict({leaf: tensors[f"{name}.{leaf}"] for leaf in empty}, assign=True)

    def let_go(*_: object) -> None:
        module.load_state_dict(empty, assign=True)

    module.register_forward_pre_hook(take)
    module.register_forward_hook(let_go, always_call=True)


def _section(name: str) -> str:
    """Return what is written together: a block, or one of the networks' parts outside of blocks."""
    block = _BLOCK.match(name)
    return block[0] if block else ".".join(name.split(".")[:2])


def _check_disk(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise WeightsTooLarge(
            f"the packed form takes {nbytes / 2**30:.1f} GiB of disk, and {folder} has {free / 2**30:.1f} GiB free; "
            "name another folder with ALLAPRIMA_ENGINE__WEIGHTS_DIR"
        )
