"""The published sizes, counted without allocating memory, and invalid configurations."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from allaprima.flux import SCHNELL, SKETCH, Autoencoder, CLIPTextEncoder, Flux, T5Encoder


def tensors(module: nn.Module) -> int:
    return len(module.state_dict())


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_schnell_transformer_has_published_size() -> None:
    with torch.device("meta"):
        flux = Flux(SCHNELL.transformer)
    assert (tensors(flux), parameters(flux)) == (776, 11_891_178_560)


def test_schnell_autoencoder_has_published_size() -> None:
    with torch.device("meta"):
        autoencoder = Autoencoder(SCHNELL.autoencoder)
    assert (tensors(autoencoder), parameters(autoencoder)) == (244, 83_819_683)
    assert (tensors(autoencoder.decoder), parameters(autoencoder.decoder)) == (138, 49_545_475)


def test_schnell_text_encoders_have_published_sizes() -> None:
    with torch.device("meta"):
        t5, clip = T5Encoder(SCHNELL.t5), CLIPTextEncoder(SCHNELL.clip)
    assert (tensors(t5), parameters(t5)) == (219, 4_762_310_656)
    assert parameters(clip) == 123_060_480


@pytest.mark.parametrize(("config", "pixels"), [(SCHNELL, 16), (SKETCH, 64)], ids=["schnell", "sketch"])
def test_networks_of_model_have_matching_sizes(config, pixels: int) -> None:
    assert config.transformer.in_channels == 4 * config.autoencoder.z_channels
    assert config.transformer.vec_in_dim == config.clip.hidden_size
    assert config.transformer.context_in_dim == config.t5.d_model
    assert config.token_px == pixels


def test_sketch_can_be_built() -> None:
    with torch.device("meta"):
        built = Flux(SKETCH.transformer), T5Encoder(SKETCH.t5), CLIPTextEncoder(SKETCH.clip)
        built = (*built, Autoencoder(SKETCH.autoencoder))
    assert all(parameters(network) > 0 for network in built)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_heads": 7}, "not a multiple of num_heads 7"),
        ({"axes_dim": (16, 56, 54)}, "does not add up to 128"),
        ({"pos_embed_channels": 6}, "pos_embed_channels 6 is not a multiple of 4"),
    ],
)
def test_inconsistent_sizes_raise_value_error(change: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(SCHNELL.transformer, **change)
