"""Reads the header and the word list of the built-in model format without importing torch. See `builtin`."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from allaprima.domain.models import id_problem
from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.weights.builtin_config import ConfigFields, check_sizes, parse_config
from allaprima.weights.formats.safetensors import SafetensorsContainer
from allaprima.weights.paths import WEIGHT_ENDINGS
from allaprima.weights.tokenizers import SPECIAL_TOKENS, read_word_list, word_tokenizer

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = "allaprima-1"
#: The number format of all tensors.
DTYPE = "BF16"
#: Largest header and largest word list, in bytes. Those of the built-in model have 33 and 14 kilobytes.
MAX_HEADER_BYTES = 2**23
MAX_WORD_LIST_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a model folder's weights, whose configuration agrees with the shapes of the tensors."""

    id: str
    config: ConfigFields
    #: Shapes of all tensors in the file by name.
    shapes: dict[str, tuple[int, ...]]


def read_header(folder: Path) -> Header:
    """Read the header of a model folder.

    Raises `WeightsMissing` for a missing file, and `WeightsCorrupt` for an unreadable file, another format, an invalid
    id, an invalid configuration, and tensors that are not bfloat16. They name the file and the field or tensor.
    """
    container = _open_weights(folder)
    for name in ("id", "config"):
        if name not in container.metadata:
            raise WeightsCorrupt(f"{container.path} has an invalid header: it has no {name}")
    model_id = container.metadata["id"]
    if problem := id_problem(model_id):
        raise WeightsCorrupt(f"{container.path} has an invalid header: the id {problem}")
    try:
        config = parse_config(container.metadata["config"])
        check_sizes(config, container.shapes)
    except ValueError as exc:
        raise WeightsCorrupt(f"{container.path} has an invalid configuration in its header: {exc}") from exc
    for name, dtype in container.dtypes.items():
        # A wrong name of a number format of the same size would give other weights, so only the one in use is allowed.
        if dtype != DTYPE:
            raise WeightsCorrupt(
                f"{container.path}: the tensor {name} is stored as {dtype}; a model folder has {DTYPE} alone"
            )
    return Header(model_id, config, dict(container.shapes))


def _open_weights(folder: Path) -> SafetensorsContainer:
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise WeightsMissing(f"the model folder {folder} has no file {name}")
    path = folder / WEIGHTS_FILE
    try:
        size = _header_bytes(path)
    except OSError as exc:
        raise WeightsCorrupt(f"{path} can't be read: {exc.strerror}") from exc
    if size > MAX_HEADER_BYTES:
        raise WeightsCorrupt(
            f"{path} has a header of {size} bytes; that of a model folder has at most {MAX_HEADER_BYTES}"
        )
    container = SafetensorsContainer(path)
    if container.metadata.get("format") != FORMAT:
        raise WeightsCorrupt(f"{path} was not written by allaprima: its header lacks format {FORMAT}")
    return container


def read_words(folder: Path, config: ConfigFields) -> Tokenizer:
    """Read the word list of a model folder.

    Raises `WeightsCorrupt`, naming the file, unless it is a tokenizer as `word_tokenizer` makes it, with ids that both
    encoders have.
    """
    path = folder / TOKENIZER_FILE
    if (size := path.stat().st_size) > MAX_WORD_LIST_BYTES:
        raise WeightsCorrupt(f"{path} has {size} bytes; a word list has at most {MAX_WORD_LIST_BYTES}")
    tokenizer = read_word_list(path)
    words = tokenizer.get_vocab()
    # CLIP reserves its last two ids.
    limit = min(config.t5.vocab_size, config.clip.vocab_size - 2)
    if (largest := max(words.values(), default=0)) >= limit:
        raise WeightsCorrupt(f"{path} has word ids up to {largest}, but the model has only {limit}")
    if any(words.get(text) != number for text, number in SPECIAL_TOKENS.items()):
        expected = ", ".join(f"{text} = {number}" for text, number in SPECIAL_TOKENS.items())
        raise WeightsCorrupt(f"{path} is not a word list: it must have the tokens {expected}")
    if _without_words(tokenizer) != _without_words(word_tokenizer([])):
        raise WeightsCorrupt(f"{path} is not a word list: it splits or changes words in another way")
    return tokenizer


def is_model_folder(path: Path) -> bool:
    """Whether a path is a folder in the built-in format, complete or not.

    The folder is in this format if the header of its weights names the format, or if it has a word list and no weights
    of another format.
    """
    try:
        if (path / TOKENIZER_FILE).is_file() and not _has_other_weights(path):
            return True
        if _header_bytes(path / WEIGHTS_FILE) > MAX_HEADER_BYTES:
            return False
        # With the framework "pt" safetensors would import torch.
        with safe_open(path / WEIGHTS_FILE, "np") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _header_bytes(path: Path) -> int:
    """Return the length of a safetensors header in bytes; 0 for a file that is shorter than that. Raises OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    return length if length < path.stat().st_size else 0


def _without_words(tokenizer: Tokenizer) -> object:
    """Return how a tokenizer splits and changes texts."""
    settings = json.loads(tokenizer.to_str())
    return settings | {"model": {name: value for name, value in settings["model"].items() if name != "vocab"}}


def _has_other_weights(folder: Path) -> bool:
    return any(file.name.lower().endswith(WEIGHT_ENDINGS) and file.name != WEIGHTS_FILE for file in folder.iterdir())
