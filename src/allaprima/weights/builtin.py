"""The built-in model format: loads networks from a model folder, and saves them to one.

A folder has two or three files. `model.safetensors` contains the tensors of the four networks, prefixed with
`transformer.`, `t5.`, `clip.` and `autoencoder.`; its header contains the model's id and configuration as JSON.
`tokenizer.json` is a word list. `lexicon.json`, which is optional, makes the model read prompts with a `PromptReader`,
and is part of the model's revision. Validation is strict: every field of the configuration must be present and within
its bounds (`builtin_config`), and the file must have exactly the tensors of the configuration, in their shapes, with
finite values.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

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
from allaprima.weights.builtin_config import ConfigFields, config_text
from allaprima.weights.builtin_header import FORMAT, TOKENIZER_FILE, WEIGHTS_FILE, read_header, read_words
from allaprima.weights.checkpoint.validate import check_shapes, check_values
from allaprima.weights.formats.container import open_container
from allaprima.weights.networks import Model, Networks, Revision
from allaprima.weights.paths import UnusedFile
from allaprima.weights.prompts.reader import PromptReader, open_reader
from allaprima.weights.quantize import LINEARS, build_networks, multiplies_bfloat16, pack, widen
from allaprima.weights.tokenizers import PromptTokenizer, word_tokenizers


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose header, word list and lexicon are valid, and whose tensors have the right shapes."""

    path: Path
    id: str
    #: The id in the header.
    own_id: str
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
        path = self.path / WEIGHTS_FILE
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


def open_model_folder(folder: Path, model_id: str | None = None) -> ModelFolder:
    """Open a model folder without reading its tensors. model_id: the id that the model gets; None: that of the header.

    Raises `WeightsMissing` or `WeightsCorrupt`, naming the file and the field of the header or the tensor.
    """
    header = read_header(folder)
    tokenizer = read_words(folder, header.config)
    config = _config(header.config)
    with meta_device():
        plain = Networks(config)
    check_shapes(folder / WEIGHTS_FILE, plain, header.shapes)
    tokenizers = word_tokenizers(tokenizer, config)
    return ModelFolder(folder, model_id or header.id, header.id, config, tokenizers, open_reader(folder))


def save_model(folder: Path, model_id: str, config: ModelConfig, networks: Networks, tokenizer: Tokenizer) -> None:
    """Write a model folder; the tensors are stored in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in networks.state_dict().items()}
    values = asdict(config)
    # The format has no field for it: a model folder always holds the encoder.
    del values["autoencoder"]["has_encoder"]
    header = {"format": FORMAT, "id": model_id, "config": config_text(values)}
    save_file(tensors, folder / WEIGHTS_FILE, header)
    tokenizer.save(str(folder / TOKENIZER_FILE))


def _config(fields: ConfigFields) -> ModelConfig:
    return ModelConfig(
        TransformerConfig(**fields.transformer.model_dump()),
        T5Config(**fields.t5.model_dump()),
        CLIPConfig(**fields.clip.model_dump()),
        AutoencoderConfig(**fields.autoencoder.model_dump()),
        fields.native_tokens,
        fields.predicts,
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as exc:
        raise WeightsCorrupt(f"{path} is not a readable safetensors file: {exc}") from exc
    open_container(path).check_ending()
    return tensors
