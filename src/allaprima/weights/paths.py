"""The paths of models on disk. `allaprima pull` stores a model in `<weights folder>/models/<model>/<layout>`.

A layout is one published set of files of a model, such as `bf16` or `gguf-q4`. A complete layout has a record file.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

from allaprima.domain.models import SCHNELL_ID, SKETCH_ID, find, id_problem
from allaprima.errors import SettingsError, WeightsMissing

#: The record file of a layout, written after all its files are downloaded and their hashes verified.
RECORD_FILE = "pulled.json"
#: Name endings of files that can contain tensors. The format is detected from the content, not from the ending.
WEIGHT_ENDINGS = (".safetensors", ".sft", ".gguf")
#: Characters of an impossible path that an error shows.
_SHOWN = 80


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


@dataclass(frozen=True, slots=True)
class ModelPath:
    """A model on disk, and the id that the operator gave it."""

    #: A folder or file.
    path: Path
    #: None: the model has the id that its files have.
    id: str | None = None


def parse_model(model: str) -> tuple[str | None, str]:
    """Split `NAME=PATH` into the name and the path or known name after it; the name of anything else is None.

    What exists as a path is a path, even if it contains "=". Raises `SettingsError` for a name that no request could
    use, or that belongs to another model.
    """
    if "=" not in model or _exists(model):
        return None, model
    name, _, target = model.partition("=")
    if problem := id_problem(name):
        raise SettingsError(f"the model {model!r} is no file or folder, and in NAME=PATH the name {problem}")
    if not target:
        raise SettingsError(f"the model {model!r} has a name and no path; give NAME=PATH")
    entry = find(name)
    # Weights of FLUX.1 [schnell] have its id without a name, too.
    if entry is not None and name != SCHNELL_ID:
        raise SettingsError(
            f"the model {model!r} can't have the name {name}, which belongs to {entry.id}; choose another name, such "
            f"as mine/{name.rpartition('/')[2]}"
        )
    # A shell expands "~" at the start of an argument only.
    with suppress(RuntimeError):
        target = str(Path(target).expanduser())
    return name, target


def find_model(model: str, configured: Iterable[str], weights_dir: Path) -> ModelPath:
    """Return one model. model: a name in `configured`, `NAME=PATH`, a path, or a known name.

    configured: models of the settings. Raises `WeightsMissing` and `SettingsError` as `model_paths`.
    """
    name, target = parse_model(model)
    if name is None and not _exists(model):
        for entry in configured:
            given, path = parse_model(entry)
            if given == model:
                return ModelPath(find_path(path, weights_dir), given)
    return ModelPath(find_path(target, weights_dir), name)


def find_path(model: str, weights_dir: Path) -> Path:
    """Return the path of a model. model: an existing path, or a model's name.

    The name of the built-in model gives its folder in the package, any other known name the layout that was pulled
    last. Raises `WeightsMissing` for a name without weights on this machine, and for a path that can't be read. An
    unknown name is returned as a path; "~" at its start is the home folder, which a shell expands in arguments only.
    """
    entry = find(model)
    if _exists(model):
        return Path(model)
    if entry is None:
        path = Path(model)
        with suppress(RuntimeError):
            path = path.expanduser()
        _check_readable(path)
        return path
    if entry.id == SKETCH_ID:
        return sketch_folder()
    if pulled := pulled_folders(weights_dir, entry.id):
        return pulled[0]
    raise WeightsMissing(
        f"{entry.id} has no weights on this machine; fetch them with `allaprima pull {entry.id}`, or give the folder "
        "or file that has them with --model"
    )


def model_paths(models: Iterable[str], weights_dir: Path) -> tuple[ModelPath, ...]:
    """Return the built-in model and then the given models with absolute paths, in order, without duplicates.

    models: paths or known names, each of which may be preceded by `NAME=`. Raises `WeightsMissing` for a known name
    without weights on this machine, and `SettingsError` for a name that a model can't have.
    """
    given = (ModelPath(sketch_folder()), *(find_model(model, (), weights_dir) for model in models))
    distinct: dict[tuple[Path, str | None], ModelPath] = {}
    for one in given:
        distinct.setdefault((one.path.resolve(), one.id), ModelPath(absolute(one.path), one.id))
    return tuple(distinct.values())


def absolute(path: Path) -> Path:
    """Return the absolute path without "..". Links are kept, since the files next to a link belong to the model.

    Links before a ".." are followed, as the system does.
    """
    if ".." not in path.parts:
        return path.absolute()
    return path.resolve() if path.name == ".." else path.parent.resolve() / path.name


def _check_readable(path: Path) -> None:
    """Raise `WeightsMissing` for a path that can't exist or can't be looked at, but not for a missing file."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as exc:
        # A prompt or a whole file can be given by mistake.
        shown = ascii(str(path)[:_SHOWN]) + ("..." if len(str(path)) > _SHOWN else "")
        raise WeightsMissing(f"the path {shown} can't be read: {getattr(exc, 'strerror', None) or exc}") from exc


def _exists(model: str) -> bool:
    try:
        return Path(model).exists()
    # The system refuses paths that are too long, and Python those with NUL characters.
    except (OSError, ValueError):
        return False
