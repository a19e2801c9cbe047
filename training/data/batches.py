"""Batches: what each step of the flow looks at, by the step's number.

Some of a batch are drawn scenes, the others collages that were never seen before; all are worded anew. What is random
about a batch follows from the step, so a fit of the same scenes and mix that was broken off goes on with the same ones.

Dimension key: D drawn scenes, K collages, B both, T text tokens, L image tokens, C latent values per token.
"""

import os
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.cached_latents import Bucket
from training.data.caption_tokens import Captions
from training.data.latent_composites import Plan, Planner, compose_collage, laid
from training.data.latent_sprites import Cutouts
from training.data.layout_labels import right_answers
from training.data.scenes import LEEWAY, Scene

#: A canvas is picked by the number of its scenes to this power, so a rare one more often than its share.
EVENNESS = 0.8
#: How much more often than others a scene is picked of a kind that is seldom: a thing that wears or holds something, or
#: that stands in front of another.
SELDOM = 2.0
#: How much more often than others a scene is picked that shows a dyed thing: dyed, the few things that can be look
#: more than twice as many ways as all things undyed.
DYED = 4.0
#: How much more often than others a scene is picked that shows a small or a big thing: it is painted of cells all of
#: its own, a big one of twice as many as another, a small one of a third, each holding thrice as much.
SIZED = 12.0


@dataclass(frozen=True, slots=True)
class Mix:
    """How many scenes of each kind a batch holds."""

    drawn: int
    collages: int


class Batch(NamedTuple):
    """What a step looks at: scenes of one canvas with a caption each, the drawn ones first."""

    #: Number of the bucket.
    bucket: int
    #: Numbers of the drawn scenes in their bucket: (D,), int64.
    picks: Tensor
    #: How the collages are laid.
    plan: Plan
    #: The collages' leeway: (K, LEEWAY), float32.
    leeway: Tensor
    #: Token ids: (B, T) each, int64.
    t5_ids: Tensor
    clip_ids: Tensor
    #: `cells.right_answers`: (B, L, questions), uint8.
    answers: Tensor


class Batches(Dataset[Batch]):
    """The batch of every step, by the step's number."""

    def __init__(self, scenes: list[list[Scene]], mix: Mix) -> None:
        """scenes: the drawn ones of each bucket, one at least."""
        self._scenes, self._mix = scenes, mix
        weights = np.array([len(several) for several in scenes], dtype=float) ** EVENNESS
        self._chances = weights / weights.sum()
        self._picked = [_chances(several) for several in scenes]
        self._planner, self._captions = Planner(), Captions()

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((2, step))
        bucket = int(rng.choice(len(self._scenes), p=self._chances))
        drawn = self._scenes[bucket]
        width, height = drawn[0].width, drawn[0].height
        collages = [_collage(rng, width, height) for _ in range(self._mix.collages)]
        picks = rng.choice(len(drawn), size=self._mix.drawn, p=self._picked[bucket])
        scenes = [*(drawn[i] for i in picks), *collages]
        ids = self._captions.ids(scenes, rng)
        leeway = torch.tensor([scene.leeway for scene in collages]).reshape(-1, LEEWAY)
        plan = self._planner.plan(collages)
        return Batch(bucket, torch.from_numpy(picks), plan, leeway, *ids, right_answers(scenes))


def _chances(scenes: list[Scene]) -> NDArray[np.float64]:
    """Return how likely each scene of a bucket is to be picked."""
    weights = np.array([_weight(scene) for scene in scenes])
    return weights / weights.sum()


def _weight(scene: Scene) -> float:
    """Return how much more often than the plainest scenes one is picked, by the rarest that is about it."""
    if any(subject.size is not None for subject in scene.subjects):
        return SIZED
    if any(subject.dye is not None for subject in scene.subjects):
        return DYED
    is_seldom = scene.relation == "front" or any(subject.accessory for subject in scene.subjects)
    return SELDOM if is_seldom else 1.0


def _collage(rng: Generator, width: int, height: int) -> Scene:
    """Return a scene of `compose_collage`, as much more likely as it would be picked more often."""
    while True:
        scene = compose_collage(rng, width, height)
        if rng.random() < _weight(scene) / SIZED:
            return scene


@dataclass(frozen=True, slots=True)
class Gallery:
    """What batches are shown from, on the networks' device."""

    buckets: list[Bucket]
    #: None for batches without collages.
    cutouts: Cutouts | None

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.buckets[0].latents.device

    def show(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's latents and leeway: (B, L, C) and (B, LEEWAY), float32. One with collages wants cutouts."""
        bucket, device = self.buckets[batch.bucket], self.device
        picks = batch.picks.to(device, non_blocking=True)
        image, leeway = bucket.latents[picks].float(), bucket.leeway[picks]
        if len(batch.leeway) == 0:
            return image, leeway
        assert self.cutouts is not None, "there are cutouts for collages"
        plan = Plan(*(told.to(device, non_blocking=True) for told in batch.plan))
        collages = laid(self.cutouts, plan, bucket.rows, bucket.columns)
        return torch.cat((image, collages)), torch.cat((leeway, batch.leeway.to(device, non_blocking=True)))


def loaded(gallery: Gallery, first: int, mix: Mix) -> DataLoader[Batch]:
    """Return the batches from a step on. For a GPU, other processes compose and word them ahead of it; a CPU has no
    core to spare, and does so when one is wanted.
    """
    on_gpu = gallery.device.type == "cuda"
    workers = (os.cpu_count() or 1) // 2 if on_gpu else 0
    batches = Batches([bucket.scenes for bucket in gallery.buckets], mix)
    # What uses a GPU must not be forked; from pinned memory a copy does not wait for the step before.
    context = "spawn" if workers else None
    steps = range(first, sys.maxsize)
    return DataLoader(
        batches, None, sampler=steps, num_workers=workers, multiprocessing_context=context, pin_memory=on_gpu
    )
