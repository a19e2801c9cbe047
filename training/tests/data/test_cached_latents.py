"""Cached latents of scenes."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.cached_latents import build_buckets, scene_key
from training.data.rendering import SceneRenderer
from training.data.scenes import FREE_FACTORS, SIZES, compose


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return Autoencoder(SKETCH.autoencoder).eval()


class NoRenderer(SceneRenderer):
    """A renderer that fails when it is called."""

    def render_chunks(self, seeds: range, width: int, height: int) -> Iterator[Tensor]:
        raise AssertionError("a cached scene was rendered again")


@pytest.fixture
def renderer(art):
    with SceneRenderer(art) as opened:
        yield opened


def test_each_canvas_has_bucket_of_latents_and_free_factors(autoencoder, renderer, tmp_path):
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


def test_cached_chunks_are_extended_by_more_scenes(autoencoder, art, renderer, tmp_path):
    few = build_buckets(autoencoder, renderer, 10, tmp_path)
    again = build_buckets(autoencoder, NoRenderer(art), 10, tmp_path)
    more = build_buckets(autoencoder, renderer, 16, tmp_path)
    for one, same, longer in zip(few, again, more, strict=True):
        assert torch.equal(one.latents, same.latents)
        assert torch.equal(longer.latents[: len(one.latents)], one.latents)
        assert longer.scenes[: len(one.scenes)] == one.scenes


def test_only_changed_scenes_are_rendered_again(autoencoder, renderer, tmp_path):
    build_buckets(autoencoder, renderer, 10, tmp_path)
    path = next(tmp_path.glob("latents-*-0.pt"))
    keys, latents = torch.load(path, weights_only=True)
    torch.save((["of another scene", *keys[1:]], torch.full_like(latents, 9.0)), path)

    again = build_buckets(autoencoder, renderer, 10, tmp_path)[0].latents

    # The rounding to bfloat16 depends on the size of the batch; another scene would differ by a tenth or more.
    assert (again[0].float() - latents[0].float()).norm() < 0.02 * latents[0].float().norm()
    assert bool((again[1:] == 9).all())
    assert torch.load(path, weights_only=True)[0] == keys


def test_cache_depends_only_on_encoder(autoencoder, art, renderer, tmp_path):
    built = build_buckets(autoencoder, renderer, 7, tmp_path)
    other = copy.deepcopy(autoencoder)

    torch.nn.init.ones_(other.decoder.conv_in.weight)
    again = build_buckets(other, NoRenderer(art), 7, tmp_path)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(built, again, strict=True))

    torch.nn.init.ones_(other.encoder.conv_in.weight)
    with pytest.raises(AssertionError, match="rendered again"):
        build_buckets(other, NoRenderer(art), 7, tmp_path)


def test_scene_key_is_fixed():
    """A changed key would invalidate all cached latents of a work folder."""
    assert scene_key(compose(20_000_000, 512, 512)) == "2b6c263f2409937b"
