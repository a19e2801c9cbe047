"""The flow's fit: times, steered noise, selected tokens and the loss."""

import math

import pytest
import torch

from allaprima.flux import SKETCH
from allaprima.flux.latents import noise, pack
from allaprima.flux.layers import latent_stats
from training.data.backgrounds import COLOURS
from training.data.batches import FlowBatches, LatentStore, Mix
from training.data.cached_latents import Bucket
from training.data.latent_sprites import SPRITE_SIDE, LatentSprites, sprite_keys
from training.data.layout_labels import LABEL_CLASSES, layout_labels
from training.data.scenes import FREE_FACTORS, cell_grid, compose
from training.fit.flow import (
    BATCH,
    MIN_WEIGHTED_TIME,
    FlowNetworks,
    draw_times,
    flow_loss,
    flow_optimizers,
    select_tokens,
    steer_noise,
    token_count,
)

CHANNELS = SKETCH.transformer.in_channels


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_times_cover_the_whole_range_and_half_are_one():
    times = draw_times(20_000, torch.device("cpu"))

    assert 0 <= float(times.min()) < 0.02
    assert float((times == 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(((times > 0.3) & (times < 0.7)).float().mean()) > 0.15


def read_free_factors(tokens):
    """Return the free factors in an image's noise: the means of its first latent channels, scaled to unit variance."""
    values = tokens.reshape(len(tokens), tokens.shape[1], -1, 4)[:, :, :FREE_FACTORS]
    return values.mean(dim=(1, 3)) * (4 * tokens.shape[1]) ** 0.5


def test_steered_noise_has_the_free_factors_as_means_and_is_otherwise_unchanged():
    plain, free_factors = torch.randn(5, 144, CHANNELS), torch.randn(5, FREE_FACTORS)

    found = steer_noise(plain, free_factors)

    assert torch.allclose(read_free_factors(found), free_factors, atol=1e-4)
    # `latent_stats` gives this value to every image token.
    assert torch.allclose(2 * torch.atanh(latent_stats(found)[:, 0, :FREE_FACTORS]), free_factors, atol=1e-3)
    assert torch.equal(found[..., 4 * FREE_FACTORS :], plain[..., 4 * FREE_FACTORS :])
    # All values of a channel are shifted by the same number.
    assert (found - plain).std(dim=1).max() < 1e-5


def test_steered_noise_is_standard_normal_if_the_free_factors_are():
    found = steer_noise(torch.randn(2000, 9, CHANNELS), torch.randn(2000, FREE_FACTORS))[..., :4].flatten()

    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.std()) == pytest.approx(1, abs=0.02)


def test_early_steps_use_few_tokens_except_every_fourth_and_late_steps_use_all():
    early = [token_count(0.1, step) for step in range(8)]
    late = [token_count(0.2, step) for step in range(8)]

    assert early == [None, 48, 48, 48] * 2
    assert late == [None] * 8


def test_the_free_factors_of_seeds_are_standard_normal():
    channels = SKETCH.autoencoder.z_channels
    found = torch.cat([read_free_factors(pack(noise(seed, channels, 12, 12)[None])) for seed in range(300)])

    assert float(found.mean()) == pytest.approx(0, abs=0.1)
    assert float(found.std()) == pytest.approx(1, abs=0.1)


def bucket_of(scenes, values):
    """Return a bucket of scenes of one canvas whose latents are a function of their shape."""
    rows, columns = cell_grid(scenes[0])
    latents = values(len(scenes), rows * columns, CHANNELS).bfloat16()
    return Bucket(rows, columns, scenes, latents, torch.tensor([scene.free_factors for scene in scenes]))


def test_the_initial_loss_is_that_of_an_empty_prediction():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(8)]
    bucket = bucket_of(scenes, torch.randn)

    loss, probe_loss = flow_loss(
        networks, LatentStore([bucket], None), FlowBatches([scenes], Mix(drawn=8, composites=0))[0], None
    )

    size = float(bucket.latents.float().square().mean())
    assert size <= loss.item() <= size / MIN_WEIGHTED_TIME**2
    # The probe's initial loss is that of uniform predictions.
    guessed = sum(math.log(count) for count in LABEL_CLASSES) / len(LABEL_CLASSES)
    assert probe_loss.item() == pytest.approx(guessed, rel=0.3)


def test_composites_contribute_to_the_loss():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(4)]
    bucket = bucket_of(scenes, torch.zeros)
    zeros = torch.zeros(len(sprite_keys()) + 1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()
    backgrounds = torch.full((len(COLOURS), 2, bucket.rows, bucket.columns, CHANNELS), 2.0)
    sprites = LatentSprites(zeros, {(bucket.rows, bucket.columns): backgrounds})

    loss, _ = flow_loss(networks, LatentStore([bucket], sprites), FlowBatches([scenes], Mix(4, 4))[0], None)

    # The initial prediction is 0, so the error depends on the latents only: 0 for drawn scenes, 4 for composites.
    assert 2 <= loss.item() <= 2 / MIN_WEIGHTED_TIME**2


def test_selected_tokens_are_the_corners_then_objects_then_others():
    scenes = [compose(seed, 512, 512) for seed in range(40)]
    objects = layout_labels(scenes)[..., 0] > 0

    selected = select_tokens(layout_labels(scenes), 48)

    assert selected.shape == (40, 48)
    for numbers, covered in zip(selected.tolist(), objects, strict=True):
        assert numbers == sorted(set(numbers))
        assert {0, 143} <= set(numbers)
        shown = int(covered[numbers].sum())
        assert shown == int(covered.sum()) or shown >= 46


def test_the_loss_of_selected_tokens_ignores_the_others():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(8)]
    # Latents are 0 except in the cells of objects.
    covered = (layout_labels(scenes)[..., :1] > 0).float()
    bucket = bucket_of(scenes, lambda *shape: covered.expand(shape))
    batch, store = FlowBatches([scenes], Mix(drawn=8, composites=0))[0], LatentStore([bucket], None)
    share = (batch.labels[..., 0] > 0).float().mean().item()

    whole, _ = flow_loss(networks, store, batch, None)
    few, _ = flow_loss(networks, store, batch, 48)

    assert share <= whole.item() <= share / MIN_WEIGHTED_TIME**2
    assert few.item() > 1.4 * whole.item()


def test_each_parameter_of_the_flow_has_one_optimizer():
    networks = FlowNetworks()

    groups = [group for optimizer in flow_optimizers(networks) for group in optimizer.param_groups]
    optimized = [id(parameter) for group in groups for parameter in group["params"]]

    assert sorted(optimized) == sorted(id(parameter) for parameter in networks.parameters())


def test_learning_rates_scale_with_the_square_root_of_the_batch():
    networks = FlowNetworks()

    def rates(batch):
        return [group["lr"] for optimizer in flow_optimizers(networks, batch) for group in optimizer.param_groups]

    assert rates(4 * BATCH) == pytest.approx([2 * rate for rate in rates(BATCH)])
