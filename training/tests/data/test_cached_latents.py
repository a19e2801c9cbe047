"""Scenes as latents, kept in chunks."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.cached_latents import build_buckets
from training.data.rendering import SceneRenderer
from training.data.scenes import FREE_FACTORS, SIZES


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return Autoencoder(SKETCH.autoencoder).eval()


class Idle(SceneRenderer):
    """Painters who have nothing to draw."""

    def drawn(self, seeds: range, width: int, height: int) -> Iterator[Tensor]:
        raise AssertionError("what is kept was drawn again")


@pytest.fixture
def renderer(art):
    with SceneRenderer(art) as opened:
        yield opened


def test_there_is_a_bucket_for_every_canvas_with_latents_and_leeway_for_every_scene(autoencoder, renderer, tmp_path):
    found = build_buckets(autoencoder, renderer, 10, tmp_path)
    assert len(found) == len(SIZES)
    for bucket in found:
        count = len(bucket.scenes)
        assert count >= 1
        assert bucket.latents.shape == (count, bucket.rows * bucket.columns, SKETCH.transformer.in_channels)
        assert bucket.free_factors.shape == (count, FREE_FACTORS)
        assert [tuple(row) for row in bucket.free_factors.tolist()] == [
            tuple(torch.tensor(scene.free_factors).tolist()) for scene in bucket.scenes
        ]


def test_chunks_are_kept_and_more_scenes_only_add_to_them(autoencoder, art, renderer, tmp_path):
    few = build_buckets(autoencoder, renderer, 10, tmp_path)
    again = build_buckets(autoencoder, Idle(art), 10, tmp_path)
    more = build_buckets(autoencoder, renderer, 16, tmp_path)
    for one, same, longer in zip(few, again, more, strict=True):
        assert torch.equal(one.latents, same.latents)
        assert torch.equal(longer.latents[: len(one.latents)], one.latents)
        assert longer.scenes[: len(one.scenes)] == one.scenes


def test_only_a_scene_that_is_another_than_when_it_was_kept_is_drawn_again(autoencoder, renderer, tmp_path):
    build_buckets(autoencoder, renderer, 10, tmp_path)
    kept = next(tmp_path.glob("latents-*-0.pt"))
    names, latents = torch.load(kept, weights_only=True)
    torch.save((["of another scene", *names[1:]], torch.full_like(latents, 9.0)), kept)

    again = build_buckets(autoencoder, renderer, 10, tmp_path)[0].latents

    # In a batch of another size bfloat16 rounds otherwise; another scene is a tenth off at least.
    assert (again[0].float() - latents[0].float()).norm() < 0.02 * latents[0].float().norm()
    assert bool((again[1:] == 9).all())
    assert torch.load(kept, weights_only=True)[0] == names


def test_another_encoders_chunks_are_not_taken_and_another_decoder_makes_no_other(autoencoder, art, renderer, tmp_path):
    made = build_buckets(autoencoder, renderer, 7, tmp_path)
    other = copy.deepcopy(autoencoder)

    torch.nn.init.ones_(other.decoder.conv_in.weight)
    again = build_buckets(other, Idle(art), 7, tmp_path)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(made, again, strict=True))

    torch.nn.init.ones_(other.encoder.conv_in.weight)
    with pytest.raises(AssertionError, match="drawn again"):
        build_buckets(other, Idle(art), 7, tmp_path)
