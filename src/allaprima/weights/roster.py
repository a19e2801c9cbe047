"""The information about the configured models that admission needs: names and prompt lengths. Does not import torch."""

from collections.abc import Iterable
from pathlib import Path

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SCHNELL_ID, ModelInfo, TokenCount, loading_info
from allaprima.errors import SettingsError
from allaprima.weights.builtin_header import is_model_folder, read_header, read_words
from allaprima.weights.checkpoint.key_maps import Component
from allaprima.weights.paths import default_folder, model_paths, pulled_folders
from allaprima.weights.prompts.input import PromptInput
from allaprima.weights.prompts.reader import open_reader
from allaprima.weights.tokenizers import find_tokenizers, word_t5_tokenizer


class ModelRoster:
    """The models that are loaded or loading. Implements `domain.ports.Roster`.

    Revision, precision and kernels are empty until an engine has loaded the models and reports them through `update`.
    """

    def __init__(self, inputs: Iterable[tuple[ModelInfo, PromptInput]]) -> None:
        """inputs: each model with what it reads of prompts, in the order of `models`."""
        listed = list(inputs)
        self._inputs = {info.id: prompt_input for info, prompt_input in listed}
        self._models = tuple(info for info, _ in listed)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded or loading."""
        return self._models

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded."""
        return all(info.revision for info in self._models)

    def tokens(self, request: GenerationRequest) -> TokenCount:
        """Return the number of T5 tokens of a request's prompt. Raises `KeyError` for a model not in the roster."""
        return self._inputs[request.model].count(request.prompt)

    def prompt_warnings(self, request: GenerationRequest) -> tuple[str, ...]:
        """Return what the result's warnings will say of the prompt. Raises `KeyError` for a model not in the roster."""
        return self._inputs[request.model].warnings(request.prompt)

    def update(self, infos: Iterable[ModelInfo]) -> None:
        """Replace the information about the models by an engine's report. Models not in the roster are ignored."""
        reported = {info.id: info for info in infos}
        self._models = tuple(reported.get(info.id, info) for info in self._models)


def open_roster(models: Iterable[str], tokenizers: Path | None = None, weights_dir: Path | None = None) -> ModelRoster:
    """Return the roster of the built-in model and the given models. Only headers and tokenizers are read.

    models, tokenizers and weights_dir are as in `open.open_models`. Raises `WeightsMissing` or `WeightsCorrupt` for a
    header or a tokenizer, naming the file, and `SettingsError` for a name that a model can't have and for two paths
    with the same id.
    """
    folder = weights_dir or default_folder()
    paths = model_paths(models, folder)
    read = [_read_model(one.path, tokenizers, folder) for one in paths]
    opened = [
        (loading_info(one.id or own_id, own_id, one.path.name), prompt_input)
        for one, (own_id, prompt_input) in zip(paths, read, strict=True)
    ]
    check_ids((info.id, info.own_id, one.path) for one, (info, _) in zip(paths, opened, strict=True))
    return ModelRoster(opened)


def check_ids(models: Iterable[tuple[str, str, Path]]) -> None:
    """Check the ids of models. models: of each the id, the id that its files have, and the path.

    Raises `SettingsError`, naming the paths, if two models have the same id or another model has that of FLUX.1
    [schnell].
    """
    paths: dict[str, Path] = {}
    for model_id, own_id, path in models:
        if model_id == SCHNELL_ID != own_id:
            raise SettingsError(
                f"engine.models: {path} is the model {own_id}, so it can't have the name {SCHNELL_ID}; give it another "
                "one with --model NAME=PATH"
            )
        if model_id in paths:
            raise SettingsError(
                f"engine.models: more than one path holds the model {model_id}: {paths[model_id]} and {path}; give "
                "each a name of its own with --model NAME=PATH"
            )
        paths[model_id] = path


def _read_model(path: Path, tokenizers: Path | None, weights_dir: Path) -> tuple[str, PromptInput]:
    """Return the id that the files at `path` have, and what the model reads of prompts."""
    if is_model_folder(path):
        header = read_header(path)
        tokenizer = word_t5_tokenizer(read_words(path, header.config), header.config.t5.length)
        return header.id, PromptInput(tokenizer, open_reader(path))
    from allaprima.weights.checkpoint.inventory import take_inventory

    inventory = take_inventory(path, pulled_folders(weights_dir, SCHNELL_ID))
    if inventory.error is not None:
        raise inventory.error
    t5_file = inventory.components[Component.T5].container
    sources = find_tokenizers(tokenizers, inventory.folders, t5_file, inventory.pulled)
    return SCHNELL_ID, PromptInput(sources.t5())
