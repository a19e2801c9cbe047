"""The information about the configured models that admission needs: names and prompt lengths. Does not import torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SCHNELL_ID, ModelInfo, TokenCount, find
from allaprima.errors import SettingsError
from allaprima.weights.builtin_header import is_model_folder, read_header, read_words
from allaprima.weights.paths import default_folder, model_paths, tokenizer_folders
from allaprima.weights.prompts.input import PromptInput
from allaprima.weights.prompts.reader import open_reader
from allaprima.weights.tokenizers import published_t5_tokenizer, word_t5_tokenizer


class ModelRoster:
    """The models that are loaded or loading. Implements `domain.ports.Roster`.

    Revision, precision and kernels are empty until an engine has loaded the models and reports them through `update`.
    """

    def __init__(self, inputs: Mapping[str, PromptInput]) -> None:
        """inputs: what each model reads of prompts, by model id, in the order of `models`."""
        self._inputs = inputs
        self._models = tuple(_info(model_id) for model_id in inputs)

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
    header or a tokenizer, naming the file, and `SettingsError` when two paths have the same model.
    """
    folder = weights_dir or default_folder()
    opened = [_read_model(path, tokenizers, folder) for path in model_paths(models, folder)]
    check_distinct(model_id for model_id, _ in opened)
    return ModelRoster(dict(opened))


def check_distinct(model_ids: Iterable[str]) -> None:
    """Raise `SettingsError` naming the ids that occur more than once."""
    ids = list(model_ids)
    if duplicates := {model_id for model_id in ids if ids.count(model_id) > 1}:
        raise SettingsError(f"engine.models: more than one path holds the model {', '.join(sorted(duplicates))}")


def _read_model(path: Path, tokenizers: Path | None, weights_dir: Path) -> tuple[str, PromptInput]:
    """Return the id of the model at `path`, and what it reads of prompts."""
    if is_model_folder(path):
        header = read_header(path)
        tokenizer = word_t5_tokenizer(read_words(path, header.config), header.config.t5.length)
        return header.id, PromptInput(tokenizer, open_reader(path))
    folders = tokenizer_folders(path, tokenizers, weights_dir, SCHNELL_ID)
    return SCHNELL_ID, PromptInput(published_t5_tokenizer(folders))


def _info(model_id: str) -> ModelInfo:
    entry = find(model_id)
    return ModelInfo(model_id, "", entry.name if entry else model_id, entry.description if entry else "")
