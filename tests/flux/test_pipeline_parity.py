"""From token ids and noise to pixels: the denoising loop against diffusers' FluxPipeline with the same weights."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from allaprima.flux import (
    Autoencoder,
    AutoencoderConfig,
    CLIPConfig,
    CLIPTextEncoder,
    Flux,
    ModelConfig,
    T5Config,
    T5Encoder,
    TransformerConfig,
)
from allaprima.flux.latents import image_ids, noise, pack, text_ids, token_grid, unpack
from allaprima.flux.sampler import euler_step, schedule
from tests.flux.oracles import clip_oracle, pipeline_oracle, randomize, t5_oracle

CONFIG = ModelConfig(
    transformer=TransformerConfig(
        in_channels=32,
        vec_in_dim=24,
        context_in_dim=32,
        hidden_size=64,
        mlp_ratio=4.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=(8, 12, 12),
    ),
    t5=T5Config(vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2, length=16),
    clip=CLIPConfig(vocab_size=60, hidden_size=24, intermediate_size=48, num_heads=3, num_layers=2, length=12),
    autoencoder=AutoencoderConfig(
        ch=16, ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=8, scale_factor=0.3611, shift_factor=0.1159, groups=8
    ),
)
STEPS = 4
SEED = 20


@dataclass(frozen=True)
class Networks:
    flux: Flux
    t5: T5Encoder
    clip: CLIPTextEncoder
    autoencoder: Autoencoder


@dataclass(frozen=True)
class Prompt:
    t5_ids: Tensor
    clip_ids: Tensor


@pytest.fixture(scope="module")
def networks() -> Networks:
    drawn = Networks(
        Flux(CONFIG.transformer), T5Encoder(CONFIG.t5), CLIPTextEncoder(CONFIG.clip), Autoencoder(CONFIG.autoencoder)
    )
    for seed, network in enumerate((drawn.flux, drawn.t5, drawn.clip, drawn.autoencoder), start=30):
        randomize(network, seed)
    drawn.autoencoder.decoder.conv_out.weight.data *= 0.5  # so that few pixels are clamped
    return drawn


def prompt(seed: int) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    clip_ids = torch.randint(0, 58, (1, CONFIG.clip.length), generator=generator)
    clip_ids[:, 8:] = CONFIG.clip.vocab_size - 1
    return Prompt(torch.randint(0, 60, (1, CONFIG.t5.length), generator=generator), clip_ids)


def generate(networks: Networks, request: Prompt, width: int, height: int) -> np.ndarray:
    """Return the pixels by allaprima's networks: (height, width, 3) uint8."""
    rows, columns = token_grid(width, height, CONFIG.token_px, CONFIG.native_tokens)
    x = pack(noise(SEED, CONFIG.autoencoder.z_channels, rows, columns)[None])
    condition = {
        "txt": networks.t5(request.t5_ids),
        "txt_ids": text_ids(CONFIG.t5.length),
        "img_ids": image_ids(rows, columns),
        "y": networks.clip(request.clip_ids),
    }
    path = schedule(STEPS)
    for t, t_next in pairwise(path):
        x = euler_step(x, networks.flux(img=x, timesteps=torch.tensor([t]), **condition), t, t_next)
    image = networks.autoencoder.decode(unpack(x, rows, columns))[0]
    return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def generate_with_diffusers(networks: Networks, request: Prompt, width: int, height: int) -> np.ndarray:
    """Return the pixels by diffusers and transformers, from the same noise."""
    start = noise(SEED, CONFIG.autoencoder.z_channels, height // CONFIG.token_px, width // CONFIG.token_px)[None]
    pipeline = pipeline_oracle(networks.flux, networks.autoencoder)
    images = pipeline(
        prompt_embeds=t5_oracle(networks.t5, CONFIG.t5)(input_ids=request.t5_ids).last_hidden_state,
        pooled_prompt_embeds=clip_oracle(networks.clip, CONFIG.clip)(input_ids=request.clip_ids).pooler_output,
        latents=pipeline._pack_latents(start, *start.shape),
        width=width,
        height=height,
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        output_type="pil",
    ).images
    return np.asarray(images[0])


@pytest.mark.parametrize(("width", "height"), [(96, 64), (40, 120)])
def test_pixels_equal_diffusers_at_two_ratios(networks: Networks, width: int, height: int) -> None:
    ours = generate(networks, prompt(1), width, height)
    theirs = generate_with_diffusers(networks, prompt(1), width, height)
    assert ours.shape == theirs.shape == (height, width, 3)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    assert ours.std(axis=(0, 1)).min() > 25  # each colour varies over the image
    assert np.isin(ours, (0, 255)).mean() < 0.02


@pytest.mark.parametrize("changed", ["t5_ids", "clip_ids"])
def test_each_prompt_embedding_changes_image(networks: Networks, changed: str) -> None:
    first = prompt(1)
    second = replace(first, **{changed: getattr(prompt(2), changed)})
    ours, other = (generate(networks, request, 96, 64).astype(int) for request in (first, second))
    assert np.abs(ours - other).max() > 5  # far more than the rounding difference to diffusers
