"""FLUX.1's networks: pure functions of tensors, with the attribute names of the published checkpoints."""

from allaprima.flux.autoencoder import Autoencoder
from allaprima.flux.cancel import CancelCheck, never_cancelled
from allaprima.flux.clip import CLIPTextEncoder
from allaprima.flux.config import (
    SCHNELL,
    SKETCH,
    AutoencoderConfig,
    CLIPConfig,
    ModelConfig,
    T5Config,
    TransformerConfig,
)
from allaprima.flux.meta import meta_device
from allaprima.flux.t5 import T5Encoder
from allaprima.flux.transformer import Flux, Modulations

__all__ = [
    "SCHNELL",
    "SKETCH",
    "Autoencoder",
    "AutoencoderConfig",
    "CLIPConfig",
    "CLIPTextEncoder",
    "CancelCheck",
    "Flux",
    "ModelConfig",
    "Modulations",
    "T5Config",
    "T5Encoder",
    "TransformerConfig",
    "meta_device",
    "never_cancelled",
]
