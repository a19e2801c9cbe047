"""The autoencoder against diffusers' AutoencoderKL with the same random weights, and its patches."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from allaprima.flux import Autoencoder, AutoencoderConfig
from tests.flux.oracles import autoencoder_oracle, fade, randomize, relative_error

SHALLOW = AutoencoderConfig(
    ch=8, ch_mult=(1, 3), num_res_blocks=1, z_channels=4, scale_factor=0.7, shift_factor=-0.2, groups=4
)
DEEP = AutoencoderConfig(
    ch=16, ch_mult=(1, 2, 4, 4), num_res_blocks=2, z_channels=16, scale_factor=0.3611, shift_factor=0.1159, groups=8
)
PATCHED = replace(SHALLOW, ch=16, patch=4)
RATIOS = [(2, 5), (7, 3)]


def random_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    autoencoder = Autoencoder(config)
    randomize(autoencoder, seed=7)
    return autoencoder


def images(config: AutoencoderConfig, rows: int, columns: int) -> Tensor:
    """Two random images of rows x columns latent positions."""
    size = (2, 3, rows * config.downscale, columns * config.downscale)
    return torch.rand(size, generator=torch.Generator().manual_seed(8)) * 2 - 1


def latents(config: AutoencoderConfig, rows: int, columns: int) -> Tensor:
    return torch.randn(2, config.z_channels, rows, columns, generator=torch.Generator().manual_seed(9))


def fold(pixels: Tensor, patch: int) -> Tensor:
    """Move the pixels of each patch into channels, in the order colour, row in the patch, column."""
    planes = [
        pixels[:, color, row::patch, column::patch]
        for color in range(pixels.shape[1])
        for row in range(patch)
        for column in range(patch)
    ]
    return torch.stack(planes, dim=1)


def without_patch(patched: Autoencoder) -> Autoencoder:
    """The same weights in an autoencoder whose input and output are patches already folded into channels."""
    config = replace(patched.config, patch=1)
    folded = 3 * patched.config.patch**2
    plain = Autoencoder(config)
    plain.encoder.conv_in = nn.Conv2d(folded, config.ch, 3, padding=1)
    plain.decoder.conv_out = nn.Conv2d(config.ch, folded, 3, padding=1)
    plain.load_state_dict(patched.state_dict())
    return plain


def encoded_by_diffusers(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    mean = autoencoder_oracle(autoencoder).encode(pixels).latent_dist.mean
    return (mean - autoencoder.config.shift_factor) * autoencoder.config.scale_factor


def decoded_by_diffusers(autoencoder: Autoencoder, z: Tensor) -> Tensor:
    unscaled = z / autoencoder.config.scale_factor + autoencoder.config.shift_factor
    return autoencoder_oracle(autoencoder).decode(unscaled).sample


@pytest.mark.parametrize(("rows", "columns"), RATIOS)
@pytest.mark.parametrize("config", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_encoded_mean_equals_diffusers_at_two_ratios(config: AutoencoderConfig, rows: int, columns: int) -> None:
    autoencoder = random_autoencoder(config)
    pixels = images(config, rows, columns)
    assert relative_error(autoencoder.encode(pixels), encoded_by_diffusers(autoencoder, pixels)) < 1e-5


@pytest.mark.parametrize(("rows", "columns"), RATIOS)
@pytest.mark.parametrize("config", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_decoded_image_equals_diffusers_at_two_ratios(config: AutoencoderConfig, rows: int, columns: int) -> None:
    autoencoder = random_autoencoder(config)
    z = latents(config, rows, columns)
    assert relative_error(autoencoder.decode(z), decoded_by_diffusers(autoencoder, z)) < 1e-5


def test_epsilons_of_norms_equal_diffusers() -> None:
    autoencoder = random_autoencoder(SHALLOW)
    fade(autoencoder, ("conv_in",))
    pixels, z = images(SHALLOW, 2, 5), latents(SHALLOW, 2, 5)
    assert relative_error(autoencoder.encode(pixels), encoded_by_diffusers(autoencoder, pixels)) < 1e-5
    assert relative_error(autoencoder.decode(z), decoded_by_diffusers(autoencoder, z)) < 1e-5


@pytest.mark.parametrize("config", [SHALLOW, DEEP, PATCHED], ids=["shallow", "deep", "patched"])
def test_decode_restores_shape_before_encode(config: AutoencoderConfig) -> None:
    autoencoder = random_autoencoder(config)
    pixels = images(config, 2, 5)
    z = autoencoder.encode(pixels)
    assert z.shape == (2, config.z_channels, 2, 5)
    assert autoencoder.decode(z).shape == pixels.shape


def test_encoder_folds_patches_into_channels() -> None:
    patched = random_autoencoder(PATCHED)
    pixels = images(PATCHED, 3, 4)
    assert relative_error(patched.encode(pixels), without_patch(patched).encode(fold(pixels, 4))) < 1e-6


def test_decoder_unfolds_channels_into_patches() -> None:
    patched = random_autoencoder(PATCHED)
    z = latents(PATCHED, 3, 4)
    assert relative_error(fold(patched.decode(z), 4), without_patch(patched).decode(z)) < 1e-6
