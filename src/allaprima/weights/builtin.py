"""The built-in model format: loads networks from a model folder, and saves them to one.

A folder has two or three files. `model.safetensors` contains the tensors of the four networks, prefixed with
`transformer.`, `t5.`, `clip.` and `autoencoder.`; its header contains the model's id and configuration as JSON.
`tokenizer.json` is a word list. `lexicon.json`, which is optional, makes the model read prompts with a `PromptReader`,
and is part of the model's revision. Validation is strict: the file must have exactly the tensors of the configuration,
in their shapes, with finite values.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from allaprima.domain.models import Precision
from allaprima.errors import WeightsCorrupt
from allaprima.flux import (
    AutoencoderConfig,
    CancelCheck,
    CLIPConfig,
    ModelConfig,
    T5Config,
    TransformerConfig,
    meta_device,
    never_cancelled,
)
from allaprima.weights.builtin_header import FORMAT, TOKENIZER_FILE, WEIGHTS_FILE, read_header
from allaprima.weights.checkpoint.validate import check_shapes, check_values
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.paths import UnusedFile
from allaprima.weights.prompts.reader import PromptReader, open_reader
from allaprima.weights.quantize import LINEARS, build_networks, multiplies_bfloat16, pack, widen
from allaprima.weights.tokenizers import PromptTokenizer, read_word_list, word_tokenizers, word_vocab_size

#: Configuration fields that have another name in the header's JSON: dataclass field -> JSON name, for the fields of
#: `ModelConfig` ("") and of a network's configuration. All other fields, and all tensors, have the same name in both.
#: The shipped weights use these names, so they must not change while `FORMAT` stays the same.
HEADER_NAMES = {
    "": {"native_tokens": "canvas_tokens"},
    "transformer": {"pos_embed_channels": "place_channels", "latent_stats": "canvas_means"},
}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose files exist and whose header has been read."""

    folder: Path
    id: str
    config: ModelConfig
    tokenizers: tuple[PromptTokenizer, PromptTokenizer]
    reader: PromptReader | None = None
    unused: tuple[UnusedFile, ...] = ()

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Load the networks onto a device.

        precision: None means bfloat16, or float32 on a CPU without kernels for bfloat16. check: called before each
        tensor. Raises `WeightsCorrupt` naming the damaged file and tensor, and any exception of `check`.
        """
        path = self.folder / WEIGHTS_FILE
        tensors = _read_tensors(path)
        precision = precision or (Precision.BF16 if multiplies_bfloat16(device) else Precision.FP32)
        networks = build_networks(self.config, precision)
        with meta_device():
            plain = Networks(self.config)
        check_shapes(path, plain, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        revision = Revision()
        state: dict[str, Tensor] = {}
        for name in sorted(tensors):
            check()
            check_values(path, name, tensors[name])
            revision.add(name, tensors[name])
            state |= pack(networks, name, tensors[name])
        if self.reader is not None:
            revision.add_text(self.reader.lexicon.digest)
        networks.load_state_dict({name: tensor.to(device) for name, tensor in state.items()}, assign=True)
        if precision in LINEARS and not multiplies_bfloat16(device):
            widen(networks)
        return Model(self.id, revision.digest(), precision, self.config, networks, *self.tokenizers, self.reader)


def open_model_folder(folder: Path) -> ModelFolder:
    """Open a model folder without reading its tensors.

    Raises `WeightsMissing` or `WeightsCorrupt`, naming the file.
    """
    model_id, config = read_header(folder, _config_from_json)
    path = folder / TOKENIZER_FILE
    tokenizer = read_word_list(path)
    if (largest := max(tokenizer.get_vocab().values(), default=0)) >= (limit := word_vocab_size(config)):
        raise WeightsCorrupt(f"{path} has word ids up to {largest}, but the model has only {limit}")
    return ModelFolder(folder, model_id, config, word_tokenizers(tokenizer, config), open_reader(folder))


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
