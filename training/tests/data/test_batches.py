"""What the flow looks at, step by step."""

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
from training.data.scenes import FREE_FACTORS, compose, grid

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
    """Drawn scenes whose latents are all 1, and collages whose latents are all 2."""
    buckets, backgrounds = [], {}
    for canvas in CANVASES:
        scenes = scenes_of(canvas)
        rows, columns = grid(scenes[0])
        free_factors = torch.tensor([scene.free_factors for scene in scenes])
        latents = torch.ones(len(scenes), rows * columns, CHANNELS).bfloat16()
        buckets.append(Bucket(rows, columns, scenes, latents, free_factors))
        backgrounds[rows, columns] = torch.full((len(COLOURS), 2, rows, columns, CHANNELS), 2.0)
    sprites = torch.zeros(len(sprite_keys()) + 1, SPRITE_SIDE, SPRITE_SIDE, CHANNELS).bfloat16()
    return LatentStore(buckets, LatentSprites(sprites, backgrounds))


def told(batch):
    return batch.bucket, [numbers.tolist() for numbers in (batch.picks, *batch.plan, *batch[3:])]


def test_the_batch_of_a_step_is_the_same_in_every_process_and_another_than_the_next_steps(batches):
    # What a loader's processes are given.
    copied = pickle.loads(pickle.dumps(batches))  # noqa: S301 - our own

    assert told(batches[7]) == told(batches[7]) == told(copied[7])
    assert told(batches[7]) != told(batches[8])


def test_a_batch_holds_drawn_scenes_of_one_bucket_and_collages_with_a_caption_each(batches):
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


def test_collages_are_of_the_canvas_of_the_drawn_scenes_beside_them_and_come_behind_them(batches, store):
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
    """How seldom a scene is, by the rarest that is about it."""
    if any(subject.size is not None for subject in scene.subjects):
        return "sized"
    if any(subject.variant is not None for subject in scene.subjects):
        return "dyed"
    if scene.relation == "front" or any(subject.accessory for subject in scene.subjects):
        return "seldom"
    return "plain"


MORE = {"sized": SIZE_WEIGHT, "dyed": VARIANT_WEIGHT, "seldom": RARE_WEIGHT, "plain": 1.0}


@pytest.mark.parametrize("rare", ["sized", "dyed", "seldom"])
def test_scenes_of_seldom_kinds_are_picked_more_often(rare):
    drawn = FlowBatches([scenes_of(SQUARE)], Mix(drawn=20, composites=0))
    kinds = [kind(scene) for scene in scenes_of(SQUARE)]
    picks = Counter(i for step in range(300) for i in drawn[step].picks.tolist())

    def mean(of):
        return sum(picks[i] for i, one in enumerate(kinds) if one == of) / kinds.count(of)

    assert mean(rare) == pytest.approx(MORE[rare] * mean("plain"), rel=0.25)


def test_collages_of_sized_or_dyed_things_are_picked_more_often(batches):
    rng = np.random.default_rng(1)
    composed = Counter(kind(compose_compositable(rng, *SQUARE)) for _ in range(900))
    keys = sprite_keys()
    shown = Counter()
    for step in range(300):
        for sprites in batches[step].plan.sprites.tolist():
            cut = [keys[number] for number in sprites if number >= 0]
            shown["sized"] += any(cells != USUAL for cells, *_ in cut)
            shown["dyed"] += any(variant is not None for cells, _, (_, variant) in cut if cells == USUAL)
    whole = sum(MORE[one] * count for one, count in composed.items())

    for rare in ("sized", "dyed"):
        assert shown[rare] / 600 == pytest.approx(MORE[rare] * composed[rare] / whole, abs=0.07)


def test_what_is_said_and_answered_of_a_collage_is_what_is_laid(batches, store):
    read, _ = tokenizers()
    for step in range(8):
        batch = batches[step]
        bucket = store.buckets[batch.bucket]
        labels = batch.labels[3:].unflatten(1, (bucket.rows, bucket.columns))
        for i, (colour, sprites) in enumerate(
            zip(batch.plan.colours.tolist(), batch.plan.sprites.tolist(), strict=True)
        ):
            name = list(COLOURS)[colour]
            words = read.tokenizer.decode(batch.t5_ids[3 + i].tolist()).split()
            assert set(COLOUR_WORDS.get(name, (name,))) & set(words)
            corners = zip(batch.plan.rows[i].tolist(), batch.plan.columns[i].tolist(), strict=True)
            for number, (row, column) in zip(sprites, corners, strict=True):
                if number >= 0:
                    _, _, (icon, _) = sprite_keys()[number]
                    assert [obj.icon for obj in OBJECTS][int(labels[i, row, column, 0]) - 1] == icon
                    # The upper left of its parts.
                    assert labels[i, row, column, 3:].tolist() == [1, 1]


def test_a_gallery_without_cutouts_shows_drawn_scenes_alone(store):
    batch = FlowBatches([bucket.scenes for bucket in store.buckets], Mix(drawn=4, composites=0))[0]

    image, free_factors = LatentStore(store.buckets, None).load(batch)

    assert len(image) == len(free_factors) == len(batch.t5_ids) == 4


def test_batches_are_loaded_from_a_step_on_so_that_a_fit_goes_on_with_its_own(batches, store):
    found = [told(batch) for batch in itertools.islice(batch_loader(store, 5, MIX), 3)]

    assert found == [told(batches[step]) for step in (5, 6, 7)]
