"""Decides which files make up a checkpoint, from their headers alone, and says why every other file is not used.

The components come from the path that the operator names. A component that is not there comes from the files around it,
and a text encoder or the autoencoder also from a pulled layout. A component that two files could provide is refused by
both names, unless one of them is clearly meant:

- components in one file with the transformer belong to it;
- a text encoder or an autoencoder of another size than the transformer expects is no part of the model;
- a file with a component alone completes a model before a file that holds another whole model;
- of diffusers' variants of one file, the one without a variant in its name is used.

A file that can't be used is no error while the model is complete without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsMissing, WeightsUnsafe
from allaprima.weights.checkpoint.components import ComponentFile, components_in
from allaprima.weights.checkpoint.identify import Unusable, identify, incomplete
from allaprima.weights.checkpoint.key_maps import CHECKPOINT_FORMATS, Component
from allaprima.weights.checkpoint.locate import PICKLE_ENDINGS, Source, find_places, folder_of
from allaprima.weights.formats.container import Container, open_container
from allaprima.weights.formats.sharded import open_sharded, shards_of_index
from allaprima.weights.paths import UnusedFile

#: The name of each component in messages, with an example of a file.
COMPONENT_NAMES = {
    Component.TRANSFORMER: "transformer (such as flux1-schnell.safetensors)",
    Component.T5: "T5 text encoder (such as t5xxl_fp16.safetensors)",
    Component.CLIP: "CLIP text encoder (such as clip_l.safetensors)",
    Component.AUTOENCODER: "autoencoder (such as ae.safetensors)",
}
#: The size by which the transformer and another component must fit: the tensor and axis of the component, the tensor
#: and axis of the transformer, and how many of the component's values make one of the transformer's.
_FITS = {
    Component.T5: ("shared.weight", 1, "txt_in.weight", 1, 1),
    Component.CLIP: ("text_model.embeddings.token_embedding.weight", 1, "vector_in.in_layer.weight", 1, 1),
    Component.AUTOENCODER: ("decoder.conv_in.weight", 1, "img_in.weight", 1, 4),
}
#: Names under which diffusers and transformers save a variant of a file, such as `model.fp16.safetensors`.
_VARIANT = re.compile(
    r"(model|diffusion_pytorch_model)"
    r"(\.safetensors\.index\.\w+\.json|\.\w+(-\d{5}-of-\d{5})?\.safetensors|-\d{5}-of-\d{5}\.\w+\.safetensors)",
    re.IGNORECASE,
)

#: Most files that can't be used which an error names after the first.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of weights, or a set of shards, and what it holds."""

    source: Source
    #: None for a file that can't be opened.
    container: Container | None
    #: The components in it; none if it can't be used.
    components: Mapping[Component, ComponentFile]
    #: What it is, if it is known and of no use.
    unusable: Unusable | None = None
    #: Why it can't be read.
    error: WeightsError | None = None

    @property
    def path(self) -> Path:
        """The file, the index, or the first shard."""
        return self.source.path

    @property
    def reason(self) -> str:
        """Why the file is of no use, without its name; empty for a file with components."""
        if self.unusable is not None:
            return f"is {self.unusable.what}; {self.unusable.advice}"
        if self.error is not None:
            return self.error.message.removeprefix(str(self.path)).lstrip(": ")
        return "" if self.components else "holds no tensors of FLUX.1 [schnell]"

    @property
    def refusal(self) -> WeightsError:
        """The error of a model that would need this file."""
        is_other = self.unusable is None or self.unusable.component is None
        advice = "; give the file or folder of a FLUX.1 [schnell] model" if is_other else ""
        return self.error or WeightsCorrupt(f"{self.path} {self.reason}{advice}")

    def could_be(self, component: Component) -> bool:
        """Whether the file was meant to hold a component, as far as can be said of a file that can't be used."""
        if self.unusable is not None:
            return self.unusable.component is component
        if self.error is None:
            return False
        if self.container is None:
            return True
        names = self.container.shapes
        return any(one.component is component and one.prefix_in(names) is not None for one in CHECKPOINT_FORMATS)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files of a checkpoint, and the files that are no part of it."""

    #: As the operator named it.
    path: Path
    components: Mapping[Component, ComponentFile]
    #: The components that no file provides.
    missing: tuple[Component, ...]
    #: The files of weights at the path and, if it is a file, around it.
    found: tuple[FoundFile, ...]
    #: What was not opened there.
    unopened: tuple[UnusedFile, ...]
    #: Number of files at the path that are no weights by their names.
    others: int
    #: The folders of pulled layouts, the preferred first.
    pulled: tuple[Path, ...]
    #: Why the files are not a complete model.
    error: WeightsError | None

    @property
    def unused(self) -> tuple[UnusedFile, ...]:
        """The files that are no part of the model, with their reasons."""
        unused = [UnusedFile(file.path, reason) for file in self.found if (reason := self.reason_against(file))]
        return (*unused, *self.unopened)

    def reason_against(self, file: FoundFile) -> str:
        """Return why a file is not used; empty for a file that is."""
        chosen = {one: self.components[one].container.path for one in file.components if one in self.components}
        if not file.components or file.path in chosen.values():
            return file.reason
        if chosen:
            component, other = next(iter(chosen.items()))
            return f"holds the {component}, and that of {other} is used"
        return f"holds the {next(iter(file.components))}, as another file does"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of the model's files, in which its tokenizers may lie."""
        folders = [folder_of(self.path)] if self.path.exists() else []
        return tuple(dict.fromkeys([*folders, *(folder_of(one.container.path) for one in self.components.values())]))


def take_inventory(path: Path, pulled: Sequence[Path] = ()) -> Inventory:
    """Return the files of the checkpoint at a path. An incomplete checkpoint has an `error`.

    pulled: the folders of pulled layouts, the preferred first. Raises `WeightsMissing` for a path that does not exist
    or that can't be read.
    """
    try:
        places = find_places(path)
    except OSError as exc:
        raise WeightsMissing(f"{exc.filename or path} can't be read: {exc.strerror}") from exc
    groups = [[_look_at(source) for source in place.sources] for place in places]
    unopened = [file for place in places for file in place.unused]
    choice = _Choice(path)
    if path.is_file() and not groups[0][0].components:
        choice.refuse(groups[0][0].refusal)
    for found in groups:
        choice.add(found)
    # A pulled file must not replace a file that is there and can't be read.
    choice.refuse_unusable(groups[:1] if path.is_file() else groups)
    for place in (place for folder in pulled for place in find_places(folder)):
        choice.add([_look_at(source) for source in place.sources], is_pulled=True)
    choice.refuse_unusable(groups)
    if missing := choice.missing:
        choice.refuse(_incomplete(missing, groups, unopened, path))
    found_files = tuple(file for group in groups for file in group)
    others = sum(place.others for place in places)
    return Inventory(
        path=path,
        components=choice.components,
        missing=tuple(choice.missing),
        found=found_files,
        unopened=tuple(unopened),
        others=others,
        pulled=tuple(pulled),
        error=choice.error,
    )


def _look_at(source: Source) -> FoundFile:
    container = None
    try:
        container = _open(source)
        unusable = identify(container)
        components = [] if unusable else components_in(container)
        if not components and unusable is None:
            unusable = incomplete(container)
    except WeightsError as exc:
        return FoundFile(source, container, {}, error=exc)
    return FoundFile(source, container, {one.component: one for one in components}, unusable)


def _open(source: Source) -> Container:
    if source.files == (source.path,):
        return open_container(source.path)
    return open_sharded(source.path, source.files or shards_of_index(source.path))


# Choice ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Choice:
    """The components that were found so far, and the first reason to refuse the model."""

    path: Path
    components: dict[Component, ComponentFile] = field(default_factory=dict)
    #: Components that more than one file could provide.
    undecided: set[Component] = field(default_factory=set)
    error: WeightsError | None = None

    @property
    def missing(self) -> list[Component]:
        """The components that no file provides."""
        return [one for one in Component if one not in self.components and one not in self.undecided]

    def refuse(self, error: WeightsError) -> None:
        """Record why the model is refused. The first reason stays."""
        self.error = self.error or error

    def add(self, found: Sequence[FoundFile], *, is_pulled: bool = False) -> None:
        """Take the components that are missing from the files of a place. A pulled layout provides no transformer."""
        for component in self.missing:
            holders = _meant(component, [file for file in found if component in file.components], self.components)
            if is_pulled and (component is Component.TRANSFORMER or self.error is not None):
                continue
            if len(holders) > 1:
                self.undecided.add(component)
                folder = self.path if self.path.is_dir() else self.path.parent
                self.refuse(
                    WeightsCorrupt(
                        f"{folder} holds the {component} twice, in {holders[0].path} and {holders[1].path}; "
                        "keep only one of them there, or give the file to use with --model"
                    )
                )
            elif holders:
                self.components[component] = holders[0].components[component]

    def refuse_unusable(self, groups: Sequence[Sequence[FoundFile]]) -> None:
        """Refuse the model if a file was meant to hold a missing component and can't be used."""
        for component in self.missing:
            if files := [file for group in groups for file in group if file.could_be(component)]:
                self.refuse(_joined_refusal(files))


def _meant(
    component: Component, holders: list[FoundFile], chosen: Mapping[Component, ComponentFile]
) -> list[FoundFile]:
    """Return the files among those with a component that can be meant; see the module's docstring."""
    transformer = chosen.get(Component.TRANSFORMER)
    if transformer is not None:
        if own := [file for file in holders if file.components.get(Component.TRANSFORMER) is transformer]:
            return own
        if len(holders) > 1:
            holders = [file for file in holders if _fits(file.components[component], transformer)] or holders
        holders = [file for file in holders if Component.TRANSFORMER not in file.components] or holders
    if len({file.path.parent for file in holders}) == 1:
        holders = [file for file in holders if not _VARIANT.fullmatch(file.path.name)] or holders
    return holders


def _fits(file: ComponentFile, transformer: ComponentFile) -> bool:
    """Whether a component has the size that the transformer expects. A shape that is missing is checked later."""
    name, axis, other_name, other_axis, factor = _FITS[file.component]
    try:
        return file.shapes[name][axis] * factor == transformer.shapes[other_name][other_axis]
    except (LookupError, TypeError):
        return True


# Refusals -------------------------------------------------------------------------------------------------------------


def _joined_refusal(files: Sequence[FoundFile]) -> WeightsError:
    """Return the error of a model that needs one of some files that can't be used. It names all of them."""
    error = files[0].refusal
    others = [f"{file.path.name} {f'is {file.unusable.what}' if file.unusable else file.reason}" for file in files[1:]]
    if not others:
        return error
    more = f"; and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return type(error)(f"{error.message}; not usable either: {'; '.join(others[:_NAMED])}{more}")


def _incomplete(
    missing: Sequence[Component],
    groups: Sequence[Sequence[FoundFile]],
    unopened: Sequence[UnusedFile],
    path: Path,
) -> WeightsError:
    """Return the error of a model that lacks components, which names what is there in their place."""
    useless = [file for group in groups for file in group if not file.components]
    seen = [f"{file.path.name} {file.reason}" for file in useless] + [
        f"{one.path.name}: {one.reason}" for one in unopened
    ]
    more = f"; and {len(seen) - _NAMED} more" if len(seen) > _NAMED else ""
    also = f"; not used: {'; '.join(seen[:_NAMED])}{more}" if seen else ""
    if not any(groups):
        if pickles := [file for file in unopened if file.path.suffix in PICKLE_ENDINGS]:
            return WeightsUnsafe(
                f"{pickles[0].path} is a pickle, which runs code when it is opened; {path} has no other weights"
            )
        return WeightsMissing(f"the folder {path} holds no safetensors or GGUF file{also}")
    where = f"{path} and the files next to it hold" if path.is_file() else f"{path} holds"
    names = ", no ".join(COMPONENT_NAMES[component] for component in missing)
    return WeightsMissing(
        f"{where} no {names}; put all files of the model into one folder, or fetch them with `allaprima pull "
        f"flux/schnell`{also}"
    )
