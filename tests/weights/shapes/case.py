"""A case: a function that writes one public shape, and the outcome that the loader must have."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file

from allaprima.errors import WeightsError
from allaprima.flux import ModelConfig
from tests.weights.published import Published, Tensors, write_bfl

TRANSFORMER, T5, CLIP, AUTOENCODER = "transformer", "t5", "clip", "autoencoder"
FILES = {
    TRANSFORMER: "flux1-schnell.safetensors",
    T5: "t5xxl_fp16.safetensors",
    CLIP: "clip_l.safetensors",
    AUTOENCODER: "ae.safetensors",
}


@dataclass(frozen=True)
class Same:
    """The model has the revision and the sizes of the reference.

    unused: name of a file or folder -> pattern of the reason for which it is not used. load: compare the revision, and
    not only which files are used. pixels: compare the image, too.
    """

    unused: Mapping[str, str] = field(default_factory=dict)
    load: bool = True
    pixels: bool = False


@dataclass(frozen=True)
class Right:
    """Each tensor differs from the reference by at most this share of its norm: the loss of the number format."""

    error: float


@dataclass(frozen=True)
class Sized:
    """The model has the reference's sizes with a change, is loaded, and generates an image.

    pixels: the image is that of the reference.
    """

    change: Callable[[ModelConfig], ModelConfig]
    pixels: bool = False


@dataclass(frozen=True)
class Refused:
    """Opening or loading raises this error, in one sentence in which every pattern is found."""

    error: type[WeightsError]
    patterns: tuple[str, ...]


Outcome = Same | Right | Sized | Refused


def refused(error: type[WeightsError], *patterns: str) -> Refused:
    """Return the outcome of a file that is refused."""
    return Refused(error, patterns)


@dataclass(frozen=True)
class Site:
    """The folder into which a case writes."""

    root: Path
    published: Published
    #: A folder with Black Forest Labs' files, which cases copy.
    reference: Path

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.root / "model"

    @property
    def cache(self) -> Path:
        """The folder of packed weights, in which pulled layouts are."""
        return self.root / "cache"

    def tensors(self, component: str) -> Tensors:
        """Return the reference's tensors of a component in bfloat16."""
        return {name: tensor.clone() for name, tensor in self.published.tensors(component).items()}

    def base(self, *without: str, folder: Path | None = None) -> Path:
        """Write Black Forest Labs' files without some components, and return their folder."""
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for component, file in FILES.items():
            if component not in without:
                shutil.copy(self.reference / file, folder / file)
        return folder

    def copy(self, component: str, path: Path) -> None:
        """Copy the reference's file of a component to a path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.reference / FILES[component], path)

    def replace(self, component: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
        """Write Black Forest Labs' files, one of which has other tensors; return its path."""
        path = self.base(component) / FILES[component]
        save_file({name: one.contiguous() for name, one in tensors.items()}, path, metadata)
        return path

    def neighbour(self, name: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
        """Write Black Forest Labs' files and one more file; return its path."""
        path = self.base() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.contiguous() for name, one in tensors.items()}, path, metadata)
        return path


#: Writes a case, and returns the path to open if it is not the site's folder.
Write = Callable[[Site], Path | None]


@dataclass(frozen=True)
class Case:
    """One public shape."""

    write: Write
    outcome: Outcome


class Cases(dict[str, Case]):
    """Cases by their names."""

    def add(self, name: str, outcome: Outcome, write: Write) -> None:
        """Add a case."""
        assert name not in self, name
        self[name] = Case(write, outcome)

    def case(self, outcome: Outcome, name: str | None = None) -> Callable[[Write], Write]:
        """Return a decorator that adds a function as a case under its name."""

        def decorate(write: Write) -> Write:
            self.add(name or write.__name__, outcome, write)
            return write

        return decorate


def write_reference(folder: Path, published: Published) -> None:
    """Write Black Forest Labs' files."""
    write_bfl(folder, published)
