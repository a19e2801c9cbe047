"""A model in memory: its four networks, how its prompts are read, and the hash that tells its weights apart."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from allaprima.domain.models import Precision
from allaprima.flux import Autoencoder, CancelCheck, CLIPTextEncoder, Flux, ModelConfig, T5Encoder, never_cancelled
from allaprima.weights.tokenizers import PromptTokenizer


class Networks(nn.Module):
    """The four networks of one model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transformer = Flux(config.transformer)
        self.t5 = T5Encoder(config.t5)
        self.clip = CLIPTextEncoder(config.clip)
        self.autoencoder = Autoencoder(config.autoencoder)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything the engine needs to paint with one model."""

    id: str
    #: First 16 hex digits of the SHA-256 over all tensors in bfloat16, by name: the same in every precision.
    revision: str
    precision: Precision
    config: ModelConfig
    networks: Networks
    t5_tokenizer: PromptTokenizer
    clip_tokenizer: PromptTokenizer


class ModelFiles(Protocol):
    """A model on the disk that has been looked at, and not read."""

    @property
    def id(self) -> str:
        """The model's id."""

    @property
    def config(self) -> ModelConfig:
        """Its sizes."""

    @property
    def tokenizers(self) -> tuple[PromptTokenizer, PromptTokenizer]:
        """T5's and CLIP's."""

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Read the networks to a device, in the asked precision or in the model's own choice.

        check: asked before each tensor. Raises `WeightsError` naming the file at fault, and whatever `check` raises.
        """


class Revision:
    """Hashes a model's tensors one by one, in a fixed order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in one tensor: its name, dtype, shape and numbers."""
        self._digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        self._digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)

    def digest(self) -> str:
        """Return the first 16 hex digits."""
        return self._digest.hexdigest()[:16]
