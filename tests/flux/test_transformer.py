"""The transformer against diffusers' FluxTransformer2DModel, with the same random weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from allaprima.flux import Flux, TransformerConfig
from allaprima.flux.latents import image_ids, text_ids
from allaprima.flux.layers import latent_stats, position_features
from tests.flux.oracles import fade, randomize, relative_error, transformer_oracle

NARROW = TransformerConfig(
    in_channels=16,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=48,
    mlp_ratio=4.0,
    num_heads=2,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(4, 8, 12),
)
WIDE = TransformerConfig(
    in_channels=64,
    vec_in_dim=24,
    context_in_dim=40,
    hidden_size=160,
    mlp_ratio=4.0,
    num_heads=5,
    depth=1,
    depth_single_blocks=2,
    axes_dim=(8, 12, 12),
)
GRIDS = [(4, 9), (11, 3)]
LENGTH = 7


def random_flux(config: TransformerConfig) -> Flux:
    flux = Flux(config)
    randomize(flux, seed=1)
    return flux


def inputs(config: TransformerConfig, rows: int, columns: int) -> dict[str, Tensor]:
    """Two samples at different times."""
    generator = torch.Generator().manual_seed(2)
    return {
        "img": torch.randn(2, rows * columns, config.in_channels, generator=generator),
        "img_ids": image_ids(rows, columns).expand(2, -1, -1),
        "txt": torch.randn(2, LENGTH, config.context_in_dim, generator=generator),
        "txt_ids": text_ids(LENGTH).expand(2, -1, -1),
        "timesteps": torch.tensor([0.75, 0.19]),
        "y": torch.randn(2, config.vec_in_dim, generator=generator),
    }


def velocity_of_diffusers(flux: Flux, given: dict[str, Tensor]) -> Tensor:
    return transformer_oracle(flux)(
        hidden_states=given["img"],
        encoder_hidden_states=given["txt"],
        pooled_projections=given["y"],
        timestep=given["timesteps"],
        img_ids=given["img_ids"][0],
        txt_ids=given["txt_ids"][0],
        return_dict=False,
    )[0]


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_velocity_equals_diffusers_at_two_ratios(config: TransformerConfig, rows: int, columns: int) -> None:
    flux = random_flux(config)
    given = inputs(config, rows, columns)
    assert relative_error(flux(**given), velocity_of_diffusers(flux, given)) < 1e-5


def test_epsilons_of_norms_equal_diffusers() -> None:
    flux = random_flux(NARROW)
    fade(flux, ("img_in", "txt_in", "qkv", "linear1"))
    given = inputs(NARROW, 4, 9)
    assert relative_error(flux(**given), velocity_of_diffusers(flux, given)) < 1e-5


def test_every_weight_and_input_changes_velocity() -> None:
    flux = random_flux(NARROW)
    given = {name: value.clone().requires_grad_() for name, value in inputs(NARROW, 4, 9).items()}
    with torch.enable_grad():
        flux(**given).square().mean().backward()
    idle = [name for name, value in (*flux.named_parameters(), *given.items()) if not value.grad.abs().max() > 0]
    assert idle == []


def test_batch_samples_are_independent() -> None:
    flux = random_flux(NARROW)
    given = inputs(NARROW, 4, 9)
    alone = [flux(**{name: value[i : i + 1] for name, value in given.items()}) for i in range(2)]
    assert relative_error(torch.cat(alone), flux(**given)) < 1e-5


def test_velocity_has_dtype_of_weights() -> None:
    flux = random_flux(NARROW)
    given = inputs(NARROW, 4, 9)
    exact = flux(**given)
    rough = flux.to(torch.bfloat16)(**given)
    assert rough.dtype == torch.bfloat16
    assert relative_error(rough, exact) < 0.1


def test_batched_modulations_equal_those_of_each_step() -> None:
    flux, given = random_flux(NARROW), inputs(NARROW, 4, 9)
    y, times = given["y"][:1], torch.tensor([1.0, 0.75, 0.5, 0.25])
    rest = [given[name][:1] for name in ("img", "img_ids", "txt", "txt_ids")]

    together = flux.modulations(times, y)

    for step in range(len(times)):
        row = together.row(step)
        alone = flux(*rest, times[step : step + 1], y)
        assert row.nbytes * len(times) == together.nbytes
        assert relative_error(flux.velocity(*rest, row), alone) < 1e-6
        assert relative_error(flux.velocity(*rest, together.row((step + 1) % len(times))), alone) > 1e-3


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (7, 20), (1, 24), (1, 1)])
def test_position_features_differ_between_tokens(rows: int, columns: int) -> None:
    (features,) = position_features(image_ids(rows, columns), 32)
    assert features.shape == (rows * columns, 32)
    assert features.abs().max() <= 1
    apart = torch.cdist(features, features) + 9 * torch.eye(len(features))
    assert apart.min() > 1


def test_position_features_do_not_depend_on_other_tokens() -> None:
    ids, some = image_ids(7, 20), [0, 3, 57, 58, 139]
    assert torch.equal(position_features(ids[:, some], 32), position_features(ids, 32)[:, some])


def test_position_features_encode_row_linearly() -> None:
    (features,) = position_features(image_ids(12, 12), 32)
    rows = torch.nn.functional.one_hot(torch.arange(12).repeat_interleave(12)).float()
    read = features @ (torch.linalg.pinv(features, rtol=1e-3) @ rows)
    assert (read - rows).abs().max() < 0.1


@pytest.mark.parametrize("length", [1, 24, 144])
def test_latent_stats_of_noise_have_unit_variance_per_channel(length: int) -> None:
    torch.manual_seed(0)
    noise = torch.randn(2000, length, 16)

    features = latent_stats(noise)

    assert features.shape == (2000, 1, 4)
    assert features.abs().max() < 1
    normal = 2 * torch.atanh(features[:, 0])
    assert normal.std(dim=0).tolist() == pytest.approx([1] * 4, abs=0.06)
    # A token has four adjacent values per channel.
    moved = noise.clone()
    moved[..., 4:8] += 0.01
    assert ((latent_stats(moved) - features).abs().amax(dim=(0, 1)) > 1e-4).tolist() == [False, True, False, False]


@pytest.mark.parametrize(("change", "count"), [({"pos_embed_channels": 8}, 8), ({"latent_stats": True}, 4)])
def test_extra_features_are_concatenated_to_latents(change: dict, count: int) -> None:
    plain, extended = random_flux(NARROW), Flux(replace(NARROW, **change))
    weights = plain.state_dict()
    latents, given = weights["img_in.weight"], inputs(NARROW, 4, 9)
    # Weights differ by hidden channel: the layer norms would remove a constant.
    read = torch.linspace(-0.3, 0.3, NARROW.hidden_size)[:, None].expand(-1, count)
    with torch.no_grad():
        extended.load_state_dict(weights | {"img_in.weight": torch.cat((latents, torch.zeros_like(read)), dim=1)})
        assert relative_error(extended(**given), plain(**given)) < 1e-6
        extended.load_state_dict(weights | {"img_in.weight": torch.cat((latents, read), dim=1)})
        assert relative_error(extended(**given), plain(**given)) > 1e-3
