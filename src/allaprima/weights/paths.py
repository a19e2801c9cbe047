"""The paths of models on disk. `allaprima pull` stores a model in `<weights folder>/models/<model>/<layout>`.

A layout is one published set of files of a model, such as `bf16` or `gguf-q4`. A complete layout has a record file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

from allaprima.domain.models import SKETCH_ID, find
from allaprima.errors import WeightsMissing

#: The record file of a layout, written after all its files are downloaded and their hashes verified.
RECORD_FILE = "pulled.json"
#: Name endings of files that can contain tensors. The format is detected from the content, not from the ending.
WEIGHT_ENDINGS = (".safetensors", ".sft", ".gguf")


@dataclass(frozen=True, slots=True)
class UnusedFile:
    """A file or a folder that is no part of the model, and why."""

    path: Path
    reason: str


def layout_folder(weights_dir: Path, model_id: str, layout: str) -> Path:
    """Return the folder of one layout of a model."""
    return weights_dir / "models" / model_id.replace("/", "-") / layout


def pulled_folders(weights_dir: Path, model_id: str) -> list[Path]:
    """Return the folders of a model's completely pulled layouts, the last pulled first."""
    # The empty layout name gives the folder that contains the folders of all layouts.
    records = layout_folder(weights_dir, model_id, "").glob(f"*/{RECORD_FILE}")
    return [record.parent for record in sorted(records, key=lambda record: -record.stat().st_mtime_ns)]


def default_folder() -> Path:
    """Return the default folder of pulled models and packed weights: the user's cache folder.

    A user without a home folder, as in some containers, has a cache in the working folder.
    """
    try:
        return user_cache_path("allaprima")
    except RuntimeError:
        return Path(".cache", "allaprima").absolute()


def sketch_folder() -> Path:
    """Return the folder of the built-in model's files inside the package."""
    return Path(str(files("allaprima.weights") / "sketch"))


def find_path(model: str, weights_dir: Path) -> Path:
    """Return the path of a model. model: an existing path, or a model's name.

    The name of the built-in model gives its folder in the package, any other known name the layout that was pulled
    last. Raises `WeightsMissing` for a name without weights on this machine. An unknown name is returned as a path.
    """
    entry = find(model)
    if entry is None or Path(model).exists():
        return Path(model)
    if entry.id == SKETCH_ID:
        return sketch_folder()
    if pulled := pulled_folders(weights_dir, entry.id):
        return pulled[0]
    raise WeightsMissing(
        f"{entry.id} has no weights on this machine; fetch them with `allaprima pull {entry.id}`, or give the folder "
        "or file that has them with --model"
    )


def model_paths(models: Iterable[str], weights_dir: Path) -> tuple[Path, ...]:
    """Return the absolute paths of the built-in model and then of the given models, in order, without duplicates.

    models: paths or names. Raises `WeightsMissing` for a name without weights on this machine.
    """
    named = (find_path(model, weights_dir) for model in models)
    return tuple(dict.fromkeys(path.resolve() for path in (sketch_folder(), *named)))
