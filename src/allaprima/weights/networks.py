"""A model in memory: its four networks, its two tokenizers, and the hash of its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from allaprima.domain.models import Precision
from allaprima.flux import Autoencoder, CancelCheck, CLIPTextEncoder, Flux, ModelConfig, T5Encoder, never_cancelled
from allaprima.weights.paths import UnusedFile
from allaprima.weights.prompts.input import PromptInput
from allaprima.weights.prompts.reader import PromptReader
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
    """Everything the engine needs to generate with one model."""

    id: str
    #: First 16 hex digits of the SHA-256 over all tensors in bfloat16 and their names, and over the lexicon of a model
    #: that has one. It is the same in every precision.
    revision: str
    precision: Precision
    config: ModelConfig
    networks: Networks
    t5_tokenizer: PromptTokenizer
    clip_tokenizer: PromptTokenizer
    #: Rewrites prompts into captions; None for a model that reads prompts as they are.
    reader: PromptReader | None = None

    @property
    def prompt_input(self) -> PromptInput:
        """What the model reads of prompts."""
        return PromptInput(self.t5_tokenizer, self.reader)


class ModelFiles(Protocol):
    """A model on disk. The names and shapes of its tensors are validated; its weights are not read yet."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def id(self) -> str:
        """The model's id: `own_id`, or the name that the operator gave it."""

    @property
    def own_id(self) -> str:
        """The id that the model's files have."""

    @property
    def config(self) -> ModelConfig:
        """The sizes of the model's networks."""

    @property
    def tokenizers(self) -> tuple[PromptTokenizer, PromptTokenizer]:
        """T5's and CLIP's tokenizers."""

    @property
    def reader(self) -> PromptReader | None:
        """The reader that rewrites prompts into captions; None for a model that reads prompts as they are."""

    @property
    def unused(self) -> tuple[UnusedFile, ...]:
        """The files at the model's path that are no part of it, with their reasons."""

    def load(
        self, device: str = "cpu", precision: Precision | None = None, check: CancelCheck = never_cancelled
    ) -> Model:
        """Load the networks onto a device, in the given precision or, for None, in the model's default.

        check: called before each tensor. Raises `WeightsError` naming the damaged file, and any exception of `check`.
        """


class Revision:
    """Hashes a model's tensors one by one. The caller adds them in a fixed order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor: its name, dtype, shape and values."""
        self._digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        self._digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)

    def add_text(self, text: str) -> None:
        """Add a text, such as the digest of another file."""
        self._digest.update(f"{text}\n".encode())

    def digest(self) -> str:
        """Return the first 16 hex digits."""
        return self._digest.hexdigest()[:16]
