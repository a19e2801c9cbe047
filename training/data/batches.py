"""The batch of each step of the flow's fit.

A batch has drawn scenes and new latent composites, with a new caption for each. Its random numbers depend on the step
alone, so a fit that is resumed with the same scenes and mix has the same batches as an uninterrupted one.

Dimension key: D drawn scenes, K composites, B both, T text tokens, L image tokens, C latent values per token.
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
from training.data.caption_tokens import CaptionTokenizer
from training.data.latent_composites import CompositePlan, CompositePlanner, compose_compositable, composite
from training.data.latent_sprites import LatentSprites
from training.data.layout_labels import layout_labels
from training.data.scenes import FREE_FACTORS, Scene

#: The probability of a canvas is proportional to its number of scenes raised to this power. Less than 1 favours rare
#: ones.
CANVAS_EXPONENT = 0.8
# Sampling weights of scenes with an attribute that needs more examples. All other scenes have weight 1.
#: Weight of scenes with an accessory, or with an object in front of another; both are rare.
RARE_WEIGHT = 2.0
#: Weight of scenes with a colour variant. The few objects with variants have more than twice as many appearances in
#: them as all objects have in their usual colours.
VARIANT_WEIGHT = 4.0
#: Weight of scenes with a small or a big object, whose cells look different from those of the usual size: a big object
#: has twice as many cells, and a small one a third as many, each with three times the content.
SIZE_WEIGHT = 12.0


@dataclass(frozen=True, slots=True)
class Mix:
    """The numbers of drawn scenes and of composites in a batch."""

    drawn: int
    composites: int


class Batch(NamedTuple):
    """Scenes of one canvas with one caption each. Drawn scenes precede composites."""

    #: Index of the bucket.
    bucket: int
    #: Indices of the drawn scenes in their bucket: (D,), int64.
    picks: Tensor
    #: Plan of the composites.
    plan: CompositePlan
    #: Free factors of the composites: (K, FREE_FACTORS), float32.
    free_factors: Tensor
    #: Token ids: (B, T) each, int64.
    t5_ids: Tensor
    clip_ids: Tensor
    #: The result of `layout_labels`: (B, L, questions), uint8.
    labels: Tensor


class FlowBatches(Dataset[Batch]):
    """The batches, indexed by step."""

    def __init__(self, scenes: list[list[Scene]], mix: Mix) -> None:
        """scenes: the drawn scenes of each bucket, at least one per bucket."""
        self._scenes, self._mix = scenes, mix
        weights = np.array([len(bucket) for bucket in scenes], dtype=float) ** CANVAS_EXPONENT
        self._bucket_probabilities = weights / weights.sum()
        self._scene_probabilities = [_probabilities(bucket) for bucket in scenes]
        self._planner, self._captions = CompositePlanner(), CaptionTokenizer()

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((2, step))
        bucket = int(rng.choice(len(self._scenes), p=self._bucket_probabilities))
        drawn = self._scenes[bucket]
        width, height = drawn[0].width, drawn[0].height
        composites = [_compose_weighted(rng, width, height) for _ in range(self._mix.composites)]
        picks = rng.choice(len(drawn), size=self._mix.drawn, p=self._scene_probabilities[bucket])
        scenes = [*(drawn[i] for i in picks), *composites]
        ids = self._captions.tokenize(scenes, rng)
        free_factors = torch.tensor([scene.free_factors for scene in composites]).reshape(-1, FREE_FACTORS)
        plan = self._planner.plan(composites)
        return Batch(bucket, torch.from_numpy(picks), plan, free_factors, *ids, layout_labels(scenes))


def _probabilities(scenes: list[Scene]) -> NDArray[np.float64]:
    """Return the sampling probability of each scene of a bucket."""
    weights = np.array([_weight(scene) for scene in scenes])
    return weights / weights.sum()


def _weight(scene: Scene) -> float:
    """Return the sampling weight of a scene, which is the largest weight of its attributes."""
    if any(subject.size is not None for subject in scene.subjects):
        return SIZE_WEIGHT
    if any(subject.variant is not None for subject in scene.subjects):
        return VARIANT_WEIGHT
    is_rare = scene.relation == "front" or any(subject.accessory for subject in scene.subjects)
    return RARE_WEIGHT if is_rare else 1.0


def _compose_weighted(rng: Generator, width: int, height: int) -> Scene:
    """Return a random compositable scene. Rejection sampling makes its probability proportional to its weight."""
    while True:
        scene = compose_compositable(rng, width, height)
        if rng.random() < _weight(scene) / SIZE_WEIGHT:
            return scene


@dataclass(frozen=True, slots=True)
class LatentStore:
    """The latents to which batches refer, on the device of the networks."""

    buckets: list[Bucket]
    #: None if no batch has composites.
    sprites: LatentSprites | None

    @property
    def device(self) -> torch.device:
        """The device of the latents."""
        return self.buckets[0].latents.device

    def load(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the latents and free factors of a batch: (B, L, C) and (B, FREE_FACTORS), float32.

        A batch with composites needs sprites.
        """
        bucket, device = self.buckets[batch.bucket], self.device
        picks = batch.picks.to(device, non_blocking=True)
        image, free_factors = bucket.latents[picks].float(), bucket.free_factors[picks]
        if len(batch.free_factors) == 0:
            return image, free_factors
        assert self.sprites is not None, "a batch with composites needs sprites"
        plan = CompositePlan(*(part.to(device, non_blocking=True) for part in batch.plan))
        composites = composite(self.sprites, plan, bucket.rows, bucket.columns)
        composite_factors = batch.free_factors.to(device, non_blocking=True)
        return torch.cat((image, composites)), torch.cat((free_factors, composite_factors))


def batch_loader(store: LatentStore, first: int, mix: Mix) -> DataLoader[Batch]:
    """Return a loader of the batches from step `first` on.

    For a fit on a GPU, worker processes prepare batches in advance. A fit on a CPU leaves no core idle, so each batch
    is prepared when it is needed.
    """
    on_gpu = store.device.type == "cuda"
    workers = (os.cpu_count() or 1) // 2 if on_gpu else 0
    batches = FlowBatches([bucket.scenes for bucket in store.buckets], mix)
    # A process that uses CUDA must not be forked. Copies from pinned memory overlap with the previous step.
    context = "spawn" if workers else None
    steps = range(first, sys.maxsize)
    return DataLoader(
        batches, None, sampler=steps, num_workers=workers, multiprocessing_context=context, pin_memory=on_gpu
    )
