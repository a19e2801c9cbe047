"""Batches of the flow's fit."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from allaprima.flux import SKETCH
from training.data.backgrounds import COLOURS
from training.data.batches import RARE_WEIGHT, SIZE_WEIGHT, VARIANT_WEIGHT, FlowBatches, LatentStore, Mix, batch_loader
from training.data.cached_latents import Bucket
from training.data.caption_tokens import tokenizers
from training.data.captions import COLOUR_WORDS
from training.data.latent_composites import compose_compositable
from training.data.latent_sprites import SPRITE_SIDE, LatentSprites, sprite_keys
from training.data.layout import USUAL
from training.data.layout_labels import layout_labels
from training.data.objects import OBJECTS
from training.data.rendering import SQUARE, canvas_px
from training.data.scenes import FREE_FACTORS, cell_grid, compose

CHANNELS = SKETCH.transformer.in_channels
CANVASES = (SQUARE, canvas_px(1024, 576))
MIX = Mix(drawn=3, composites=2)


def scenes_of(canvas):
    return [compose(seed, *canvas) for seed in range(20)]


@pytest.fixture(scope="module")
def batches():
    return FlowBatches([scenes_of(canvas) for canvas in CANVASES], MIX)


@pytest.fixture(scope="module")
def store():
    """Drawn scenes whose latents are all 1, and composites whose latents are all 2."""
    buckets, backgrounds = [], {}
    for canvas in CANVASES:
        scenes = scenes_of(canvas)
        rows, columns = cell_grid(scenes[0])
        free_factors = torch.tensor([scene.free_factors for scene in scenes])
        latents = torch.ones(len(scenes), rows * columns, CHANNELS).bfloat16()
        buckets.append(Bucket(rows, columns, scenes, latents, free_factors))
        backgrounds[rows, columns] = torch.full((len(COLOURS), 2, rows, columns, CHANNELS), 2.0)
    sprites = torch.zeros(len(sprite_keys()) + 1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()
    return LatentStore(buckets, LatentSprites(sprites, backgrounds))


def content(batch):
    return batch.bucket, [numbers.tolist() for numbers in (batch.picks, *batch.plan, *batch[3:])]


def test_batch_is_determined_by_step_in_every_process(batches):
    # Worker processes of the loader receive pickled batches.
    copied = pickle.loads(pickle.dumps(batches))  # noqa: S301 - pickled by this test

    assert content(batches[7]) == content(batches[7]) == content(copied[7])
    assert content(batches[7]) != content(batches[8])


def test_batch_has_drawn_scenes_of_one_bucket_and_composites(batches):
    batch = batches[3]
    drawn = [scenes_of(CANVASES[batch.bucket])[i] for i in batch.picks]

    assert batch.bucket in (0, 1)
    assert torch.equal(batch.labels[:3], layout_labels(drawn))
    assert batch.picks.shape == (3,)
    assert 0 <= int(batch.picks.min()) <= int(batch.picks.max()) < 20
    assert batch.free_factors.shape == (2, FREE_FACTORS)
    assert all(len(part) == 2 for part in batch.plan)
    assert batch.t5_ids.shape == (5, SKETCH.t5.length)
    assert batch.clip_ids.shape == (5, SKETCH.clip.length)


def test_composites_follow_drawn_scenes_on_same_canvas(batches, store):
    seen = set()
    for step in range(8):
        batch = batches[step]
        bucket = store.buckets[batch.bucket]
        seen.add(batch.bucket)

        image, free_factors = store.load(batch)

        assert image.shape == (5, bucket.rows * bucket.columns, CHANNELS)
        assert image.mean((1, 2)).tolist() == [1, 1, 1, 2, 2]
        assert torch.equal(free_factors, torch.cat((bucket.free_factors[batch.picks], batch.free_factors)))
    assert seen == {0, 1}


def kind(scene):
    """Return the rarest attribute of a scene."""
    if any(subject.size is not None for subject in scene.subjects):
        return "sized"
    if any(subject.variant is not None for subject in scene.subjects):
        return "variant"
    if scene.relation == "front" or any(subject.accessory for subject in scene.subjects):
        return "rare"
    return "plain"


WEIGHTS = {"sized": SIZE_WEIGHT, "variant": VARIANT_WEIGHT, "rare": RARE_WEIGHT, "plain": 1.0}


@pytest.mark.parametrize("attribute", ["sized", "variant", "rare"])
def test_rare_scenes_are_sampled_more_often(attribute):
    drawn = FlowBatches([scenes_of(SQUARE)], Mix(drawn=20, composites=0))
    kinds = [kind(scene) for scene in scenes_of(SQUARE)]
    picks = Counter(i for step in range(300) for i in drawn[step].picks.tolist())

    def mean(of):
        return sum(picks[i] for i, one in enumerate(kinds) if one == of) / kinds.count(of)

    assert mean(attribute) == pytest.approx(WEIGHTS[attribute] * mean("plain"), rel=0.25)


def test_rare_composites_are_sampled_more_often(batches):
    rng = np.random.default_rng(1)
    composed = Counter(kind(compose_compositable(rng, *SQUARE)) for _ in range(900))
    keys = sprite_keys()
    shown = Counter()
    for step in range(300):
        for sprites in batches[step].plan.sprites.tolist():
            used = [keys[number] for number in sprites if number >= 0]
            shown["sized"] += any(cells != USUAL for cells, *_ in used)
            shown["variant"] += any(variant is not None for cells, _, (_, variant) in used if cells == USUAL)
    whole = sum(WEIGHTS[one] * count for one, count in composed.items())

    for attribute in ("sized", "variant"):
        expected = WEIGHTS[attribute] * composed[attribute] / whole
        assert shown[attribute] / 600 == pytest.approx(expected, abs=0.07)


def test_captions_and_labels_of_composites_match_their_plan(batches, store):
    t5_tokenizer, _ = tokenizers()
    for step in range(8):
        batch = batches[step]
        bucket = store.buckets[batch.bucket]
        labels = batch.labels[3:].unflatten(1, (bucket.rows, bucket.columns))
        for i, sprites in enumerate(batch.plan.sprites.tolist()):
            name = list(COLOURS)[int(batch.plan.colours[i])]
            words = t5_tokenizer.tokenizer.decode(batch.t5_ids[3 + i].tolist()).split()
            assert set(COLOUR_WORDS.get(name, (name,))) & set(words)
            corners = zip(batch.plan.rows[i].tolist(), batch.plan.columns[i].tolist(), strict=True)
            for number, (row, column) in zip(sprites, corners, strict=True):
                if number >= 0:
                    _, _, (icon, _) = sprite_keys()[number]
                    assert [obj.icon for obj in OBJECTS][int(labels[i, row, column, 0]) - 1] == icon
                    # The cell has the upper left part of the object.
                    assert labels[i, row, column, 3:].tolist() == [1, 1]


def test_store_without_sprites_loads_only_drawn_scenes(store):
    batch = FlowBatches([bucket.scenes for bucket in store.buckets], Mix(drawn=4, composites=0))[0]

    image, free_factors = LatentStore(store.buckets, None).load(batch)

    assert len(image) == len(free_factors) == len(batch.t5_ids) == 4


def test_loader_starts_at_given_step(batches, store):
    loaded = [content(batch) for batch in itertools.islice(batch_loader(store, 5, MIX), 3)]

    assert loaded == [content(batches[step]) for step in (5, 6, 7)]
