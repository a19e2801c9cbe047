"""Fixtures of a minimal model with every kind of layer, and of a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer

from allaprima.flux import AutoencoderConfig, CLIPConfig, ModelConfig, T5Config, TransformerConfig
from allaprima.weights.builtin import save_model
from allaprima.weights.networks import Networks
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.tokenizers import word_tokenizer

if TYPE_CHECKING:
    from tests.weights.published import Published

WORDS = ["a", "apple", "beach", "on", "red", "rex", "t", "the"]
TINY = ModelConfig(
    transformer=TransformerConfig(
        in_channels=16,
        vec_in_dim=8,
        context_in_dim=8,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=(2, 2, 4),
    ),
    t5=T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=16, num_heads=2, num_layers=1, length=8),
    clip=CLIPConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_heads=2, num_layers=1, length=8),
    autoencoder=AutoencoderConfig(
        ch=8, ch_mult=(1, 2), num_res_blocks=1, z_channels=4, scale_factor=0.5, shift_factor=0.25, groups=4
    ),
    native_tokens=16,
)


@pytest.fixture
def networks() -> Networks:
    """Random weights that bfloat16 represents exactly."""
    generator = torch.Generator().manual_seed(0)
    made = Networks(TINY).requires_grad_(requires_grad=False)
    for tensor in made.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator).bfloat16())
    return made


@pytest.fixture
def tokenizer() -> Tokenizer:
    return word_tokenizer(WORDS)


@pytest.fixture
def config() -> ModelConfig:
    return TINY


@pytest.fixture
def folder(tmp_path: Path, networks: Networks, tokenizer: Tokenizer) -> Path:
    """A valid model folder."""
    made = tmp_path / "tiny"
    save_model(made, "tests/tiny", TINY, networks, tokenizer)
    return made


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Weights and tokenizers of a small FLUX.1 [schnell]."""
    from tests.weights.published import Published, make_networks, write_tokenizers

    folder = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(folder)
    return Published(make_networks(), folder)


@pytest.fixture
def checkpoint(tmp_path: Path, published: Published) -> Path:
    """The folder of a valid checkpoint."""
    from tests.weights.published import write_bfl

    folder = tmp_path / "checkpoint"
    write_bfl(folder, published)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> PackedWeightCache:
    return PackedWeightCache(tmp_path / "cache")
