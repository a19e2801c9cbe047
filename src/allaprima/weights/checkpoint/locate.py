"""Finds the files that could hold a checkpoint's weights, by their names alone.

A path leads to one or more places, which are searched in order; a component that is found in one place is not searched
in the next. A place is the content of a folder, of a diffusers folder's subfolders, or of a tree like that of ComfyUI.
Sources: huggingface/diffusers `pipelines/pipeline_loading_utils.py` (folders, variants); Comfy-Org/ComfyUI
`folder_paths.py`; huggingface/huggingface_hub `file_download.py` (cache folders).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.formats.container import is_weights
from allaprima.weights.formats.sharded import INDEX_NAME, shards_by_number, shards_of_index
from allaprima.weights.paths import WEIGHT_ENDINGS, UnusedFile, absolute

#: Subfolders of a diffusers folder with FLUX's networks.
DIFFUSERS_FOLDERS = ("transformer", "text_encoder", "text_encoder_2", "vae")
#: Folders of ComfyUI's `models` with FLUX's networks, each with subfolders of the user's. SwarmUI and other tools write
#: some of the names in capitals.
COMFY_FOLDERS = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "vae")
PICKLE_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".pt2")
#: Name endings of the files that describe a model next to its weights.
_DESCRIPTION_ENDINGS = (".json", ".txt", ".md", ".yaml", ".yml", ".model", ".jinja")
#: Subfolders of a diffusers folder without weights.
_DESCRIPTION_FOLDERS = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
_UNFINISHED_ENDINGS = (".part", ".partial", ".crdownload", ".aria2", ".incomplete", ".download", ".tmp", ".unfinished")
_ARCHIVE_ENDINGS = (".zip", ".gz", ".7z", ".rar", ".xz", ".zst", ".bz2")
_HUB_PREFIX = "models--"
#: Bounds of a search in a tree: levels below its top, and folders in all.
_MAX_DEPTH, _MAX_FOLDERS = 6, 2000
#: Levels below a folder that is not searched at which weights in it are counted.
_UNSEARCHED_DEPTH = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A file of weights, or a set of shards."""

    #: The file, the index, or the first shard of a set without an index.
    path: Path
    #: The files with tensors.
    files: tuple[Path, ...]


@dataclass(slots=True)
class Place:
    """Files that are searched together."""

    sources: list[Source] = field(default_factory=list)
    #: What is not opened: unfinished downloads, hidden files, pickles, folders with other content.
    unused: list[UnusedFile] = field(default_factory=list)
    #: Number of files that are no weights by their names.
    others: int = 0

    def add(self, other: Place) -> None:
        """Add the files of another place."""
        self.sources += other.sources
        self.unused += other.unused
        self.others += other.others


def find_places(path: Path) -> list[Place]:
    """Return the places to which a path leads: for a file, the file and then the files around it.

    Raises `WeightsMissing` for a path that does not exist, for a file that describes a model, such as
    `model_index.json`, and for a folder that holds several models.
    """
    if path.is_dir():
        return _distinct(_places_in(path))
    if not path.is_file():
        raise WeightsMissing(f"there is no file or folder {path}")
    if _is_description(path):
        raise WeightsMissing(
            f"{path} describes a model, and holds no weights; give the folder {folder_of(absolute(path))}, or a file "
            "of weights"
        )
    return _distinct([Place([_source_of(path)]), *_places_around(absolute(path))])


def _is_description(file: Path) -> bool:
    """Whether a file describes a model: by its name, if its content is not that of weights."""
    is_named_so = file.name.lower().endswith(_DESCRIPTION_ENDINGS) and not INDEX_NAME.fullmatch(file.name)
    return is_named_so and not is_weights(file)


def _distinct(places: list[Place]) -> list[Place]:
    """Return places in which each file is a source once: one file can be in two folders, by links.

    A second name of a file, a hard link, is unused.
    """
    seen: dict[object, Path] = {}
    for place in places:
        kept = []
        for source in place.sources:
            names = {_identity(file): file for file in source.files or (source.path,)}
            same = next(((file, seen[one]) for one, file in names.items() if one in seen), None)
            if same is None:
                kept.append(source)
            elif os.path.realpath(same[0]) != os.path.realpath(same[1]):
                place.unused.append(UnusedFile(source.path, f"another name of {same[1]}"))
            for identity, file in names.items():
                seen.setdefault(identity, file)
        place.sources = kept
    return places


def _identity(file: Path) -> object:
    try:
        status = file.stat()
    except OSError:
        return file
    return status.st_dev, status.st_ino


def folder_of(path: Path) -> Path:
    """Return the folder that a model's path stands for: a hub cache's snapshot, a file's folder, or the path itself."""
    if not path.is_dir():
        is_inside = path.parent.name in (*DIFFUSERS_FOLDERS, *_DESCRIPTION_FOLDERS)
        return path.parent.parent if is_inside else path.parent
    return _resolved(path)


# Folders --------------------------------------------------------------------------------------------------------------


def _places_in(folder: Path) -> list[Place]:
    folder = _resolved(folder)
    own = _files_in(folder)
    if _is_diffusers(folder):
        subfolders = Place()
        for name in DIFFUSERS_FOLDERS:
            subfolders.add(_files_in(folder / name))
        own.unused += _unsearched(folder, [folder / name for name in DIFFUSERS_FOLDERS])
        return [subfolders, own]
    if _is_comfy_tree(folder):
        return [_comfy_tree(folder)]
    if own.sources:
        own.unused += _unsearched(folder, ())
        return [own]
    for subfolder in _subfolders(folder):
        own.add(_files_in(subfolder))
        own.unused += _unsearched(subfolder, ())
    return [own]


def _places_around(file: Path) -> list[Place]:
    """Return the places with the files around a file, the file among them."""
    parent = file.parent
    for folder in (parent, parent.parent):
        if _is_diffusers(folder) and parent.relative_to(folder).parts in ((), *((name,) for name in DIFFUSERS_FOLDERS)):
            return _places_in(folder)
    # A file in ComfyUI's tree can lie in a subfolder of the user's.
    for folder in list(parent.parents)[:_MAX_DEPTH]:
        inside = parent.relative_to(folder).parts[0]
        if inside.lower() in COMFY_FOLDERS and _is_comfy_tree(folder):
            return [_comfy_tree(folder)]
    return [_files_in(parent)]


def _resolved(folder: Path) -> Path:
    """Return the folder with a model's files: the snapshot of a hub cache, or `models` of a ComfyUI installation."""
    if (folder / "snapshots").is_dir() and folder.name.startswith(_HUB_PREFIX):
        return _snapshot(folder)
    cached = sorted(one for one in _subfolders(folder) if one.name.startswith(_HUB_PREFIX))
    if cached and not _files_in(folder).sources:
        if len(cached) > 1:
            names = ", ".join(one.name for one in cached[:8])
            raise WeightsMissing(f"{folder} is a hub cache of several models; give the folder of one of them: {names}")
        return _snapshot(cached[0])
    trees = [one for one in _subfolders(folder) if one.name.lower() == "models" and _is_comfy_tree(one)]
    if len(trees) > 1:
        raise WeightsMissing(f"{folder} has two folders of models; give {trees[0]} or {trees[1]}")
    return trees[0] if trees and not _files_in(folder).sources else folder


def _snapshot(repository: Path) -> Path:
    """Return the snapshot of a repository in a hub cache: that of `refs/main`, or the only one."""
    snapshots = _subfolders(repository / "snapshots")
    try:
        commit = (repository / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        commit = ""
    for snapshot in snapshots:
        if snapshot.name == commit or len(snapshots) == 1:
            return snapshot
    if not snapshots:
        raise WeightsMissing(f"{repository} has no snapshot: nothing was downloaded; download the model again")
    names = ", ".join(str(one) for one in snapshots[:8])
    raise WeightsMissing(f"{repository} has several snapshots, and refs/main names none of them; give one: {names}")


def _is_diffusers(folder: Path) -> bool:
    if (folder / "model_index.json").is_file():
        return True
    # ComfyUI has a folder `vae` too.
    return any(_files_in(folder / name).sources for name in DIFFUSERS_FOLDERS if name != "vae")


def _comfy_folders(folder: Path) -> list[Path]:
    """Return the folders with ComfyUI's names in a folder, in any capitals: `vae` and `VAE` if both exist."""
    return [one for one in _subfolders(folder) if one.name.lower() in COMFY_FOLDERS]


def _is_comfy_tree(folder: Path) -> bool:
    return len({one.name.lower() for one in _comfy_folders(folder)}) >= 2


def _comfy_tree(folder: Path) -> Place:
    place = _files_in(folder)
    searched = _comfy_folders(folder)
    for one in searched:
        for subfolder in _walk(one):
            place.add(_files_in(subfolder))
    place.unused += _unsearched(folder, searched)
    return place


def _unsearched(folder: Path, searched: Sequence[Path]) -> Iterator[UnusedFile]:
    """Yield the subfolders that have weights and are not searched."""
    for subfolder in _subfolders(folder):
        if subfolder not in searched:
            count = sum(len(_files_in(one).sources) for one in _walk(subfolder, _UNSEARCHED_DEPTH))
            if count:
                what = "LoRAs are not applied" if "lora" in subfolder.name.lower() else "this folder is not searched"
                yield UnusedFile(subfolder, f"{what} ({count} {'file' if count == 1 else 'files'} of weights)")


def _walk(folder: Path, depth_limit: int = _MAX_DEPTH) -> Iterator[Path]:
    """Yield a folder and the folders in it to a depth, without hidden ones; links are followed, each folder once."""
    seen: set[str] = set()
    for where, folders, _ in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        depth = len(Path(where).relative_to(folder).parts)
        if real in seen or len(seen) >= _MAX_FOLDERS:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < depth_limit else []
        yield Path(where)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


# Files ----------------------------------------------------------------------------------------------------------------


def _files_in(folder: Path) -> Place:
    """Return the weights in a folder, without its subfolders. A folder that does not exist has none."""
    place = Place()
    try:
        entries = sorted(one for one in folder.iterdir() if not one.is_dir())
    except FileNotFoundError:
        return place
    except OSError as exc:
        raise WeightsMissing(f"{folder} can't be read: {exc.strerror}") from exc
    weights = []
    for file in entries:
        if reason := _unused_by_name(file):
            place.unused.append(UnusedFile(file, reason))
        elif INDEX_NAME.fullmatch(file.name) or file.name.lower().endswith(WEIGHT_ENDINGS):
            weights.append(file)
        else:
            place.others += 1
    place.sources = _sources(weights)
    return place


def _unused_by_name(file: Path) -> str | None:
    """Return why a file is not opened, or None for weights and for files that are no weights by their names."""
    name = file.name.lower()
    stem = name
    while stem.endswith((*_UNFINISHED_ENDINGS, *_ARCHIVE_ENDINGS)):
        stem = stem.rpartition(".")[0]
    is_weights = stem.endswith((*WEIGHT_ENDINGS, *PICKLE_ENDINGS))
    if not is_weights:
        return None
    if name.startswith("."):
        return "a hidden file, such as macOS writes next to each file" if name.startswith("._") else "a hidden file"
    if stem != name:
        return "an archive; unpack it" if name.endswith(_ARCHIVE_ENDINGS) else "an unfinished download"
    if name.endswith(PICKLE_ENDINGS):
        return "a pickle, which runs code when it is opened"
    if not file.exists():
        return "a link to a file that does not exist; download it again"
    return None if file.is_file() else "not a regular file"


def _sources(files: Sequence[Path]) -> list[Source]:
    """Group the files of a folder: shards of an index, shards that are numbered, and single files."""
    remaining = set(files)
    sources = []
    for index in (file for file in files if INDEX_NAME.fullmatch(file.name)):
        sources.append(_source_of(index))
        remaining -= {index, *sources[-1].files}
    for file in files:
        if file in remaining:
            sources.append(_source_of(file))
            remaining -= {file, *sources[-1].files}
    return sorted(sources, key=lambda source: source.path)


def _source_of(file: Path) -> Source:
    """Return the source to which a file belongs. An index that can't be read is a source without shards."""
    if INDEX_NAME.fullmatch(file.name):
        try:
            return Source(file, shards_of_index(file))
        except WeightsCorrupt:
            return Source(file, ())
    if (shards := shards_by_number(file)) is not None:
        return Source(shards[0], shards)
    return Source(file, (file,))
