"""The flow's fit: which times and which noise it sees, and what its loss says."""

import math

import pytest
import torch

from allaprima.flux import SKETCH
from allaprima.flux.latents import noise, pack
from allaprima.flux.layers import latent_stats
from training.batches import Batches, Gallery, Mix
from training.buckets import Bucket
from training.cells import ANSWERS, right_answers
from training.cutouts import SIDE, Cutouts, cutout_keys
from training.flow import (
    BATCH,
    NEAREST,
    FlowNetworks,
    draw_times,
    flow_loss,
    flow_optimizers,
    picked,
    steered,
    tokens_seen,
)
from training.places import COLOURS
from training.scenes import LEEWAY, compose, grid

CHANNELS = SKETCH.transformer.in_channels


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_times_are_of_the_whole_way_and_often_of_its_beginning():
    times = draw_times(20_000, torch.device("cpu"))

    assert 0 <= float(times.min()) < 0.02
    assert float((times == 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(((times > 0.3) & (times < 0.7)).float().mean()) > 0.15


def read_leeway(tokens):
    """What a picture's noise says: the means of its first latent channels, scaled to deviate by one."""
    values = tokens.reshape(len(tokens), tokens.shape[1], -1, 4)[:, :, :LEEWAY]
    return values.mean(dim=(1, 3)) * (4 * tokens.shape[1]) ** 0.5


def test_steered_noise_tells_the_leeway_and_is_otherwise_as_it_was():
    plain, leeway = torch.randn(5, 144, CHANNELS), torch.randn(5, LEEWAY)

    found = steered(plain, leeway)

    assert torch.allclose(read_leeway(found), leeway, atol=1e-4)
    # As every image token hears it.
    assert torch.allclose(2 * torch.atanh(latent_stats(found)[:, 0, :LEEWAY]), leeway, atol=1e-3)
    assert torch.equal(found[..., 4 * LEEWAY :], plain[..., 4 * LEEWAY :])
    # The same shift for every value of a channel.
    assert (found - plain).std(dim=1).max() < 1e-5


def test_steered_noise_is_standard_normal_if_the_leeway_is():
    found = steered(torch.randn(2000, 9, CHANNELS), torch.randn(2000, LEEWAY))[..., :4].flatten()

    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.std()) == pytest.approx(1, abs=0.02)


def test_early_steps_look_at_few_tokens_but_every_fourth_at_all_and_late_ones_at_all():
    early = [tokens_seen(0.1, step) for step in range(8)]
    late = [tokens_seen(0.2, step) for step in range(8)]

    assert early == [None, 48, 48, 48] * 2
    assert late == [None] * 8


def test_the_noise_of_a_seed_tells_a_leeway_that_is_standard_normal():
    channels = SKETCH.autoencoder.z_channels
    told = torch.cat([read_leeway(pack(noise(seed, channels, 12, 12)[None])) for seed in range(300)])

    assert float(told.mean()) == pytest.approx(0, abs=0.1)
    assert float(told.std()) == pytest.approx(1, abs=0.1)


def bucket_of(scenes, values):
    """The scenes of one canvas, with latents made up by a function of their shape."""
    rows, columns = grid(scenes[0])
    latents = values(len(scenes), rows * columns, CHANNELS).bfloat16()
    return Bucket(rows, columns, scenes, latents, torch.tensor([scene.leeway for scene in scenes]))


def test_a_fit_begins_with_no_opinion_so_that_its_loss_is_the_images_own_size():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(8)]
    bucket = bucket_of(scenes, torch.randn)

    loss, read = flow_loss(networks, Gallery([bucket], None), Batches([scenes], Mix(drawn=8, collages=0))[0], None)

    size = float(bucket.latents.float().square().mean())
    assert size <= loss.item() <= size / NEAREST**2
    # Nor an opinion of what stands where.
    guessed = sum(math.log(count) for count in ANSWERS) / len(ANSWERS)
    assert read.item() == pytest.approx(guessed, rel=0.3)


def test_collages_have_their_loss_beside_drawn_scenes():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(4)]
    bucket = bucket_of(scenes, torch.zeros)
    things = torch.zeros(len(cutout_keys()) + 1, SIDE, SIDE, CHANNELS).bfloat16()
    grounds = torch.full((len(COLOURS), 2, bucket.rows, bucket.columns, CHANNELS), 2.0)
    cutouts = Cutouts(things, {(bucket.rows, bucket.columns): grounds})

    loss, _ = flow_loss(networks, Gallery([bucket], cutouts), Batches([scenes], Mix(4, 4))[0], None)

    # Nothing is painted yet, so it is the images' own size: 0 of the drawn ones, 4 of the collages.
    assert 2 <= loss.item() <= 2 / NEAREST**2


def test_a_few_tokens_are_the_corners_then_things_then_any_others():
    scenes = [compose(seed, 512, 512) for seed in range(40)]
    things = right_answers(scenes)[..., 0] > 0

    seen = picked(right_answers(scenes), 48)

    assert seen.shape == (40, 48)
    for numbers, covered in zip(seen.tolist(), things, strict=True):
        assert numbers == sorted(set(numbers))
        assert {0, 143} <= set(numbers)
        shown = int(covered[numbers].sum())
        assert shown == int(covered.sum()) or shown >= 46


def test_the_loss_of_a_few_tokens_is_theirs_alone():
    networks = FlowNetworks()
    scenes = [compose(seed, 512, 512) for seed in range(8)]
    # Nothing to paint but where things are.
    covered = (right_answers(scenes)[..., :1] > 0).float()
    bucket = bucket_of(scenes, lambda *shape: covered.expand(shape))
    batch, gallery = Batches([scenes], Mix(drawn=8, collages=0))[0], Gallery([bucket], None)
    share = (batch.answers[..., 0] > 0).float().mean().item()

    whole, _ = flow_loss(networks, gallery, batch, None)
    few, _ = flow_loss(networks, gallery, batch, 48)

    assert share <= whole.item() <= share / NEAREST**2
    assert few.item() > 1.4 * whole.item()


def test_every_parameter_is_moved_by_one_optimizer():
    networks = FlowNetworks()

    groups = [group for optimizer in flow_optimizers(networks) for group in optimizer.param_groups]
    moved = [id(parameter) for group in groups for parameter in group["params"]]

    assert sorted(moved) == sorted(id(parameter) for parameter in networks.parameters())


def test_rates_rise_with_the_root_of_the_batch():
    networks = FlowNetworks()

    def rates(batch):
        return [group["lr"] for moved in flow_optimizers(networks, batch) for group in moved.param_groups]

    assert rates(4 * BATCH) == pytest.approx([2 * rate for rate in rates(BATCH)])
