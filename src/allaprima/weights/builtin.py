"""The built-in model's own form on the disk: a folder, to networks in memory and back.

A folder holds `model.safetensors` (the four networks' tensors under `transformer.`, `t5.`, `clip.` and
`autoencoder.`, and in its header the model's id and configuration as JSON) and `tokenizer.json` (a word list).
Reading is strict: every tensor that the configuration asks for, in its shape and finite, and no other.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.flux import (
    AutoencoderConfig,
    CancelCheck,
    CLIPConfig,
    ModelConfig,
    T5Config,
    TransformerConfig,
    never_cancelled,
)
from allaprima.weights.checkpoint.validate import check_numbers, check_shapes
from allaprima.weights.formats.containers import ENDINGS
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.quantize import LINEARS, build_networks, multiplies_bfloat16, pack, widen
from allaprima.weights.tokenizers import PromptTokenizer, word_room, word_tokenizers

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = "allaprima-1"
#: The file format's names of configuration fields that the code calls differently: field of the code -> name in the
#: header's JSON, for the model's own fields ("") and those of a network. All other fields have the same name in both,
#: as have all tensors. The shipped weights use these names, so they must not change while `FORMAT` stays the same.
HEADER_NAMES = {
    "": {"native_tokens": "canvas_tokens"},
    "transformer": {"pos_embed_channels": "place_channels", "latent_stats": "canvas_means"},
}


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """A model folder whose files are there and whose header has been read."""

    folder: Path
    id: str
    config: ModelConfig
    tokenizers: tuple[PromptTokenizer, PromptTokenizer]

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Read the networks; unless told otherwise in bfloat16, or in float32 on a CPU without kernels for that.

        check: asked before each tensor. Raises `WeightsCorrupt` naming the file and the tensor at fault.
        """
        path = self.folder / WEIGHTS_FILE
        tensors = _read_tensors(path)
        precision = precision or (Precision.BF16 if multiplies_bfloat16(device) else Precision.FP32)
        networks = build_networks(self.config, precision)
        with torch.device("meta"):
            plain = Networks(self.config)
        check_shapes(path, plain, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        revision = Revision()
        state: dict[str, Tensor] = {}
        for name in sorted(tensors):
            check()
            check_numbers(path, name, tensors[name])
            revision.add(name, tensors[name])
            state |= pack(networks, name, tensors[name])
        networks.load_state_dict({name: tensor.to(device) for name, tensor in state.items()}, assign=True)
        if precision in LINEARS and not multiplies_bfloat16(device):
            widen(networks)
        return Model(self.id, revision.digest(), precision, self.config, networks, *self.tokenizers)


def open_folder(folder: Path) -> FolderFiles:
    """Look at a model folder without reading its tensors.

    Raises `WeightsMissing` or `WeightsCorrupt`, naming the file.
    """
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise WeightsMissing(f"the model folder {folder} has no file {name}")
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
    except (SafetensorError, OSError) as exc:
        raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc
    if header.get("format") != FORMAT:
        raise WeightsCorrupt(f"{path} was not written by allaprima: its header lacks format {FORMAT}")
    try:
        config = _config_from_json(json.loads(header["config"]))
        model_id = header["id"]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:
        raise WeightsCorrupt(f"{path} has a header that can't be used: {exc}") from exc
    tokenizer = _read_tokenizer(folder / TOKENIZER_FILE, word_room(config))
    return FolderFiles(folder, model_id, config, word_tokenizers(tokenizer, config))


def is_own_folder(path: Path) -> bool:
    """Say whether a path is a folder in this form, whole or not: by the header of its weights, or by a word list concat_into
    which no other weights lie.
    """
    if (path / TOKENIZER_FILE).is_file() and not _has_other_weights(path):
        return True
    try:
        with safe_open(path / WEIGHTS_FILE, "pt") as opened:
            return bool((opened.metadata() or {}).get("format") == FORMAT)
    except (SafetensorError, OSError):
        return False


def _has_other_weights(folder: Path) -> bool:
    return any(file.name.lower().endswith(ENDINGS) and file.name != WEIGHTS_FILE for file in folder.iterdir())


def save_model(folder: Path, model_id: str, config: ModelConfig, networks: Networks, tokenizer: Tokenizer) -> None:
    """Write a model folder; the tensors are stored in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in networks.state_dict().items()}
    header = {"format": FORMAT, "id": model_id, "config": json.dumps(_config_to_json(config))}
    save_file(tensors, folder / WEIGHTS_FILE, header)
    tokenizer.save(str(folder / TOKENIZER_FILE))


def _config_to_json(config: ModelConfig) -> dict[str, Any]:
    values = _renamed(asdict(config), HEADER_NAMES[""])
    return values | {"transformer": _renamed(values["transformer"], HEADER_NAMES["transformer"])}


def _config_from_json(values: dict[str, Any]) -> ModelConfig:
    fields = {owner: {name: field for field, name in names.items()} for owner, names in HEADER_NAMES.items()}
    values = _renamed(values, fields[""])
    transformer = _renamed(values["transformer"], fields["transformer"])
    tuples = {key: tuple(value) for key, value in transformer.items() if isinstance(value, list)}
    mults = {"ch_mult": tuple(values["autoencoder"]["ch_mult"])}
    return ModelConfig(
        TransformerConfig(**transformer | tuples),
        T5Config(**values["t5"]),
        CLIPConfig(**values["clip"]),
        AutoencoderConfig(**values["autoencoder"] | mults),
        values["native_tokens"],
        values["predicts"],
    )


def _renamed(values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with some keys renamed, in the same order. Raises `ValueError` if a new name is in use."""
    if taken := values.keys() & set(names.values()):
        raise ValueError(f"unknown fields {', '.join(sorted(taken))}")
    return {names.get(key, key): value for key, value in values.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as exc:
        raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc


def _read_tokenizer(path: Path, room: int) -> Tokenizer:
    """Return the word list at `path`, whose ids must be below `room`: the encoders know no others."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception for a file that it can't read.
    except Exception as exc:
        raise WeightsCorrupt(f"{path} is not a readable tokenizer: {exc}") from exc
    if (largest := max(tokenizer.get_vocab().values(), default=0)) >= room:
        raise WeightsCorrupt(f"{path} has words up to the id {largest}, where the model knows {room}")
    return tokenizer
