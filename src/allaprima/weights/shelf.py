"""What was worked out from a checkpoint's files, kept for the next start: their revision, and their packed form.

A shelf is a folder. A checkpoint has a place on it by the path, size and time of change of every file of it, so that
files that were changed are read anew. A packed form is a folder of safetensors files, one for each block and one for
each block's modulations, in the layout that the kernels multiply; they are mapped, so that a start takes seconds and
what is not used takes no memory.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from allaprima.errors import WeightsCorrupt, WeightsTooLarge
from allaprima.kernels import LAYOUT
from allaprima.request import Precision
from allaprima.weights.networks import Borrow, Loan, Networks, all_at_hand, loan_of

logger = logging.getLogger(__name__)

SOURCES_FILE, REVISION_FILE, INDEX_FILE = "sources.json", "revision", "index.json"
#: A packed form's files are written into a folder of this ending until they are all there.
UNFINISHED = ".part"
_BLOCK = re.compile(r"transformer\.(double|single)_blocks\.\d+|t5\.encoder\.block\.\d+")


def default_folder() -> Path:
    """Return the folder of pulled models and of shelves where the settings name none."""
    return user_cache_path("allaprima")


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

    def keep_revision(self, revision: str) -> None:
        """Remember that the files were all read and found sound."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SOURCES_FILE).write_text(json.dumps(self._sources, indent=1))
        unfinished = self.folder / (REVISION_FILE + UNFINISHED)
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
        not that much room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self._form_folder(precision)
        unfinished = folder.with_name(folder.name + UNFINISHED)
        with FileLock(self.folder / f"{folder.name}.lock"):
            if folder.is_dir():
                yield None
                return
            shutil.rmtree(unfinished, ignore_errors=True)
            _check_disk(self.folder, nbytes)
            unfinished.mkdir()
            packer = Packer(unfinished)
            yield packer
            packer.finish()
            unfinished.rename(folder)

    def _form_folder(self, precision: Precision) -> Path:
        return self.folder / f"{precision}-{LAYOUT}"


class Packer:
    """Writes a packed form, one tensor after another, in the order of `Networks.state_dict`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._section = ""
        self._pending: dict[str, dict[str, Tensor]] = {}
        self._loans: dict[str, Loan | None] = {}

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Take in what the networks keep of one tensor; no more than one block's are held at a time."""
        for name, tensor in tensors.items():
            section = _section(name)
            if section != self._section:
                self._write()
                self._section = section
            loan = loan_of(name)
            file = f"{section}.{loan or 'always'}.safetensors"
            self._loans[file] = loan
            self._pending.setdefault(file, {})[name] = tensor.contiguous()

    def finish(self) -> None:
        """Write what is still held, and the list of the files."""
        self._write()
        (self._folder / INDEX_FILE).write_text(json.dumps(self._loans, indent=1))

    def _write(self) -> None:
        for file, tensors in self._pending.items():
            save_file(tensors, self._folder / file)
        if self._pending:
            logger.debug("packed %s", self._section)
        self._pending = {}


class PackedForm:
    """A packed form that is all there."""

    def __init__(self, folder: Path) -> None:
        """Raises `WeightsCorrupt` naming a file that is not as it was written."""
        self.folder = folder
        try:
            index: dict[str, str | None] = json.loads((folder / INDEX_FILE).read_bytes())
            self._files = {file: loan and Loan(loan) for file, loan in index.items()}
        except (OSError, ValueError, AttributeError) as exc:
            raise self._damaged(INDEX_FILE, exc) from exc

    def read(self, loan: Loan | None) -> dict[str, Tensor]:
        """Return the tensors of a loan, or those that are always needed; mapped, and let go with the last of them."""
        return {
            name: tensor
            for file, belongs_to in self._files.items()
            if belongs_to == loan
            for name, tensor in self._read_file(file).items()
        }

    def _read_file(self, file: str) -> dict[str, Tensor]:
        try:
            with safe_open(self.folder / file, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as exc:
            raise self._damaged(file, exc) from exc

    def _damaged(self, file: str, exc: Exception) -> WeightsCorrupt:
        return WeightsCorrupt(
            f"{self.folder / file} is not as it was written ({exc}); remove the folder {self.folder}, "
            "and it will be made anew"
        )


def lend(networks: Networks, form: PackedForm, device: str) -> Borrow:
    """Put a packed form's tensors into networks that have none yet; return how to borrow those that are lent.

    On a GPU nothing is lent: what is there is there to be used, and what comes and goes would come over a narrow bus.
    """
    lender = Lender(networks, form)
    place_tensors(networks, form, None, device)
    if device == "cpu":
        return lender
    for loan in Loan:
        place_tensors(networks, form, loan, device)
    return all_at_hand


class Lender:
    """Maps the weights of a loan while they are borrowed, and lets them go afterwards.

    What is let go stays in the system's file cache as long as nobody else needs the room, so that borrowing again
    costs little where memory is plenty, and memory is there where it is not.
    """

    def __init__(self, networks: Networks, form: PackedForm) -> None:
        """networks: whose lent tensors are on the meta device."""
        self._networks = networks
        self._form = form
        self._empty = {
            loan: {name: tensor for name, tensor in networks.state_dict().items() if loan_of(name) == loan}
            for loan in Loan
        }

    @contextmanager
    def __call__(self, loan: Loan) -> Iterator[None]:
        """Have the weights of a loan at hand while the context lasts."""
        place_tensors(self._networks, self._form, loan, "cpu")
        try:
            yield
        finally:
            self._networks.load_state_dict(self._empty[loan], strict=False, assign=True)


def place_tensors(networks: nn.Module, form: PackedForm, loan: Loan | None, device: str) -> None:
    """Put a packed form's tensors of a loan into networks that have none yet.

    Raises `WeightsCorrupt` where the form has others than the networks ask for.
    """
    tensors = form.read(loan)
    wanted = {name: tensor for name, tensor in networks.state_dict().items() if loan_of(name) == loan}
    if {name: _kind(tensor) for name, tensor in tensors.items()} != {
        name: _kind(tensor) for name, tensor in wanted.items()
    }:
        raise WeightsCorrupt(
            f"{form.folder} holds other tensors than its model has; remove that folder, and it will be made anew"
        )
    networks.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, strict=False, assign=True)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


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
