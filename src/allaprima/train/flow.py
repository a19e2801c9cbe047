"""Fit the transformer of `sketch` and its two text encoders, together, as a rectified flow on scenes' latents.

The text encoders can read already (`reading`), and go on learning slowly. Scenes come as latents (`buckets`); captions
are worded anew at every visit. The transformer predicts the image, from which the velocity follows (Li and He 2025,
2511.13720): a stream so narrow can't carry the noise beside all else. Times are drawn from a logit-normal (Esser et al.
2024, 2403.03206, section 3.1), and often at t = 1, where only the words are known. Matrices of the blocks are moved by
Muon (Jordan et al. 2024), all else by AdamW.

Dimension key: B batch, L image tokens, C latent values per token.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH, CLIPTextEncoder, Flux, T5Encoder
from allaprima.flux.latents import image_ids, text_ids
from allaprima.train.buckets import Bucket
from allaprima.train.fit import Fit
from allaprima.train.optimizers import Optimizers
from allaprima.train.reading import Captions

FLOW_CHECKPOINT = "flow.ckpt"
BATCH = 48
MUON_RATE = 0.01
ADAM_RATE = 1e-3
ENCODER_RATE = 3e-4
#: A canvas is picked by the number of its scenes to this power, so a rare one more often than its share.
EVENNESS = 0.8
#: Times below this weigh as this one: what is wrong with the image there is too little to be seen.
NEAREST = 0.6
#: Share of the minutes from which on noise is no louder about its leeway than chance, and how loud it is at first.
QUIET_FROM = 0.25
LOUDEST = 0.8


class FlowNetworks(nn.Module):
    """The three networks that are fitted together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Flux(SKETCH.transformer)
        self.t5 = T5Encoder(SKETCH.t5)
        self.clip = CLIPTextEncoder(SKETCH.clip)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        # The fit starts from an empty image and untouched residuals.
        for name, parameter in self.transformer.named_parameters():
            if "mod" in name.lower() or name.startswith("final_layer"):
                nn.init.zeros_(parameter)


def flow_optimizers(networks: FlowNetworks) -> Optimizers:
    """Return Muon for the matrices of the transformer's blocks, and AdamW for the rest.

    Muon moves a matrix by the same amount however small its gradient is; on the text encoders, whose gradients are
    mostly noise in a small batch, that is a random walk that the words' meanings do not survive.
    """
    matrices: list[nn.Parameter] = []
    encoders: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in networks.named_parameters():
        in_block = name.startswith(("transformer.double_blocks", "transformer.single_blocks"))
        if in_block and parameter.ndim == 2 and "mod" not in name:
            matrices.append(parameter)
        else:
            (rest if name.startswith("transformer.") else encoders).append(parameter)
    groups = [{"params": rest, "lr": ADAM_RATE}, {"params": encoders, "lr": ENCODER_RATE}]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def draw_times(count: int) -> Tensor:
    """Return times in [0, 1]: (count,). Half are 1, the very beginning, whose step decides what the picture shows; of
    the others seven in eight are logit-normal (mean 0.5, scale 1.2) and one is uniform.
    """
    times = torch.sigmoid(0.5 + 1.2 * torch.randn(count))
    times = torch.where(torch.rand(count) < 0.125, torch.rand(count), times)
    return torch.where(torch.rand(count) < 0.5, torch.ones(count), times)


def fit_flow(
    folder: Path,
    networks: FlowNetworks,
    buckets: list[Bucket],
    minutes: float,
    look: Callable[[int], None],
    *,
    compiled: bool = False,
) -> None:
    """Fit in place for that many minutes (over all runs), with checkpoints in `folder`.

    look: called with the number of steps now and then, and at the end. compiled: `compile_blocks`.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
    if compiled:
        compile_blocks(networks.transformer)
    captions = Captions()
    fit = Fit(folder / FLOW_CHECKPOINT, {"flow": networks}, flow_optimizers(networks), minutes, seed=1)
    weights = np.array([len(bucket.scenes) for bucket in buckets], dtype=float) ** EVENNESS
    smooth = None
    for step in fit.steps():
        rng = np.random.default_rng((2, step))
        which = rng.choice(len(buckets), p=weights / weights.sum())
        bucket = buckets[which]
        picks = rng.integers(len(bucket.scenes), size=BATCH)
        loud = loudness(fit.share)
        t5_ids, clip_ids = captions.ids([bucket.scenes[i] for i in picks], rng)
        loss = flow_loss(networks, bucket, torch.from_numpy(picks), t5_ids, clip_ids, loud)
        fit.descend(loss)
        smooth = loss.item() if smooth is None else 0.99 * smooth + 0.01 * loss.item()
        if step % 100 == 0:
            print(f"flow {fit.share:6.1%} step {step} loss {smooth:.4f} loud {loud:.2f}", flush=True)
        if fit.is_look_due():
            look(step)
    print("flow done" + ("" if smooth is None else f": step {fit.step} loss {smooth:.4f}"), flush=True)
    look(fit.step)


def compile_blocks(transformer: Flux) -> None:
    """Compile each block by itself, once for each canvas: all blocks of a kind share what is compiled.

    Compiled as a whole, the transformer took minutes longer to begin and no less for a step.
    """
    for block in (*transformer.double_blocks, *transformer.single_blocks):
        block.compile(dynamic=False)


def loudness(share: float) -> float:
    """Return how loudly the leeway is told at a share of the fit, for `steered`: from 1 down to 0 by `QUIET_FROM`.

    A mean over the picture is hard to hear before there is anything to hear it for. So it begins as a shift of every
    value that is plain to see, and by and by comes down to what chance itself has.
    """
    return max(0.0, 1.0 - share / QUIET_FROM)


def steered(noise: Tensor, leeway: Tensor, loud: float = 0.0) -> Tensor:
    """Return noise of which the mean of latent channel k over the picture is leeway k, scaled to deviate by one.

    Noise (B, L, C) and leeway (B, K) are standard normal, and so is what is returned; but now the noise that a picture
    is painted from tells what the words leave open about it. Without that, a first step could only paint the mean of
    all that it might be, and two seeds would differ little. Pairing noise with what it should become is the idea of
    Pooladian et al. 2023 (2304.14772); here the pairs are made, not searched.

    loud: 0 for noise like any other; up to 1 for means that are larger than chance has them, the values' variance
    being kept.
    """
    batch, length, _ = noise.shape
    count = leeway.shape[1]
    # A token holds the four values of a latent channel side by side (`latents.pack`).
    values = noise.reshape(batch, length, -1, 4).clone()
    told = values[:, :, :count]
    by_chance = (4 * length) ** -0.5
    mean = by_chance ** (1 - loud) * LOUDEST**loud
    rest = ((1 - mean**2) / (1 - by_chance**2)) ** 0.5
    told -= told.mean(dim=(1, 3), keepdim=True)
    told *= rest
    told += (leeway * mean)[:, None, :, None]
    return values.reshape(noise.shape)


def flow_loss(
    networks: FlowNetworks,
    bucket: Bucket,
    picks: Tensor,
    t5_ids: Tensor,
    clip_ids: Tensor,
    loud: float = 0.0,
) -> Tensor:
    """Return the mean squared error of the velocity at random times, those near 0 weighed less.

    picks: (B,). loud: of `steered`.
    """
    image = bucket.latents[picks].float()  # (B, L, C)
    noise = steered(torch.randn_like(image), bucket.leeway[picks], loud)
    t = draw_times(len(picks))
    mixed = torch.lerp(image, noise, t[:, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        predicted = networks.transformer(
            mixed,
            image_ids(bucket.rows, bucket.columns).expand(len(picks), -1, -1),
            networks.t5(t5_ids),
            text_ids(t5_ids.shape[1]).expand(len(picks), -1, -1),
            t,
            networks.clip(clip_ids),
        )
    # The error of the velocity that follows from a predicted image is that image's, over t.
    errors = (predicted.float() - image) / t.clamp(min=NEAREST)[:, None, None]
    return errors.square().mean()
