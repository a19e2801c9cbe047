"""Fit the transformer of `sketch` and its two text encoders, together, as a rectified flow on scenes' latents.

The text encoders can read already (`reading`), and go on learning slowly. The transformer predicts the image,
from which the velocity follows (Li and He 2025, 2511.13720): a stream so narrow can't carry the noise beside all else.
Times are drawn from a logit-normal (Esser et al. 2024, 2403.03206, section 3.1), and often at t = 1, where only the
words are known. Matrices of the blocks are moved by Muon (Jordan et al. 2024), all else by AdamW.

Dimension key: B batch, L image tokens, C latent values per token.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH, CLIPTextEncoder, Flux, T5Encoder
from allaprima.flux.latents import image_ids, text_ids
from training.data.batches import Batch, Gallery, Mix, loaded
from training.data.latents import device_of
from training.fit.layout_probe import CellReader
from training.fit.loop import Fit
from training.fit.optimizers import Optimizers
from training.fit.text_encoders import look_both_ways

FLOW_CHECKPOINT, FLOW_SEED = "flow.ckpt", 1
#: Scenes a step, and the rates for so many; those for more rise with the root of their number. That is derived for Adam
#: (Malladi et al. 2022, 2205.10287), carried over to Muon, and was seen to work for 256.
BATCH = 48
MUON_RATE = 0.01
ADAM_RATE = 1e-3
ENCODER_RATE = 3e-4
#: Times below this weigh as this one: what is wrong with the image there is too little to be seen.
NEAREST = 0.6
#: How much the error of what is read from the cells counts: about as much as the picture's, in the blocks before.
CELLS_WEIGHT = 0.3
#: Up to a share of the minutes most steps look at so many image tokens of a scene only, those where things are first.
#: Most of a canvas is ground, which is soon learned and costs as much as what stands on it. That a transformer may be
#: fitted to a part of the tokens first, and to all at the end, is the finding of Zheng et al. 2023 (2306.09305). For
#: long it does harm: which tokens there are gives away where things stand, and a fit reads that instead of the noise.
FEW_TOKENS, FEW_UNTIL = 48, 0.12
#: One step in so many looks at all of them even then: a fit that never sees a whole canvas believes that things are
#: everywhere.
WHOLE_EVERY = 4


class FlowNetworks(nn.Module):
    """The three networks that are fitted together, and what reads along while they are."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Flux(SKETCH.transformer)
        self.t5 = T5Encoder(SKETCH.t5)
        self.clip = CLIPTextEncoder(SKETCH.clip)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        look_both_ways(self.t5)
        # The fit starts from an empty image and untouched residuals.
        for name, parameter in self.transformer.named_parameters():
            if "mod" in name.lower() or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
        self.cells = CellReader(self.transformer)


def flow_optimizers(networks: FlowNetworks, batch: int = BATCH) -> Optimizers:
    """Return Muon for the matrices of the transformer's blocks, and AdamW for the rest, at rates for `batch` scenes a
    step.

    Muon moves a matrix by the same amount however small its gradient is; on the text encoders, whose gradients are
    mostly noise in a small batch, that is a random walk that the words' meanings do not survive.
    """
    matrices: list[nn.Parameter] = []
    encoders: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    readers = list(networks.cells.parameters())
    for name, parameter in networks.named_parameters():
        in_block = name.startswith(("transformer.double_blocks", "transformer.single_blocks"))
        if in_block and parameter.ndim == 2 and "mod" not in name:
            matrices.append(parameter)
        elif name.startswith("transformer."):
            rest.append(parameter)
        elif not name.startswith("cells."):
            encoders.append(parameter)
    more = (batch / BATCH) ** 0.5
    groups = [
        {"params": rest, "lr": more * ADAM_RATE},
        {"params": encoders, "lr": more * ENCODER_RATE},
        {"params": readers, "lr": more * ADAM_RATE},
    ]
    return [
        torch.optim.Muon(matrices, lr=more * MUON_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def draw_times(count: int, device: torch.device) -> Tensor:
    """Return times in [0, 1], float32 (count,), on a device.

    Half are 1, the very beginning, whose step decides what the picture shows; of the others seven in eight are
    logit-normal (mean 0.5, scale 1.2) and one is uniform.
    """
    times = torch.sigmoid(0.5 + 1.2 * torch.randn(count, device=device))
    uniform, first, second = torch.rand(3, count, device=device)
    times = torch.where(first < 0.125, uniform, times)
    return torch.where(second < 0.5, torch.ones_like(times), times)


def fit_flow(
    folder: Path,
    networks: FlowNetworks,
    gallery: Gallery,
    minutes: float,
    take_snapshot: Callable[[int], None],
    *,
    mix: Mix,
    compiled: bool = False,
) -> None:
    """Fit in place for that many minutes (over all runs), with checkpoints in `folder`; networks and gallery are on one
    device.

    take_snapshot: called with the number of steps now and then, and at the end. compiled: `compile_blocks`.
    """
    if compiled:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
        compile_blocks(networks.transformer)
    optimizers = flow_optimizers(networks, mix.drawn + mix.collages)
    fit = Fit(folder / FLOW_CHECKPOINT, {"flow": networks}, optimizers, minutes, FLOW_SEED)
    smooth = None
    batches = loaded(gallery, fit.step, mix) if fit.share < 1 else ()
    # There are always more batches than steps; the step is asked for first, so none is made for nothing.
    for step, asked in zip(fit.steps(), batches, strict=False):
        loss, read = flow_loss(networks, gallery, asked, tokens_seen(fit.share, step))
        fit.descend(loss + CELLS_WEIGHT * read)
        # Not read off the device at every step: a GPU would wait for each.
        both = torch.stack((loss, read)).detach()
        smooth = both if smooth is None else smooth.lerp(both, 0.01)
        if step % 100 == 0:
            print(f"flow {fit.share:6.1%} step {step} {_told(smooth)}", flush=True)
        if fit.is_snapshot_due():
            take_snapshot(step + 1)
    print("flow done" + ("" if smooth is None else f": step {fit.step} {_told(smooth)}"), flush=True)
    take_snapshot(fit.step)


def _told(losses: Tensor) -> str:
    return "loss {:.4f} cells {:.4f}".format(*losses.tolist())


def compile_blocks(transformer: Flux) -> None:
    """Compile each block by itself: all blocks of a kind share what is compiled. On a CPU once for each canvas; on a
    GPU, where compiling all would take longer than a short fit, once for all.

    Compiled as a whole, the transformer took minutes longer to begin and no less for a step.
    """
    for block in (*transformer.double_blocks, *transformer.single_blocks):
        block.compile(dynamic=device_of(transformer).type != "cpu")


def tokens_seen(share: float, step: int) -> int | None:
    """Return how many image tokens of a scene a step looks at, at a share of the fit; None: all."""
    return FEW_TOKENS if share < FEW_UNTIL and step % WHOLE_EVERY != 0 else None


def steered(noise: Tensor, leeway: Tensor) -> Tensor:
    """Return noise of which the mean of latent channel k over the picture is leeway k, scaled to deviate by one.

    Noise (B, L, C) and leeway (B, K) are standard normal, and so is what is returned; but now the noise that a picture
    is painted from tells what the words leave open about it, and every image token hears it (`layers.means`). Without
    that, a first step could only paint the mean of all that it might be, and two seeds would differ little. Pairing
    noise with what it should become is the idea of Pooladian et al. 2023 (2304.14772); here the pairs are made, not
    searched.
    """
    batch, length, _ = noise.shape
    count = leeway.shape[1]
    # A token holds the four values of a latent channel side by side (`latents.pack`).
    values = noise.reshape(batch, length, -1, 4).clone()
    told = values[:, :, :count]
    told += (leeway * (4 * length) ** -0.5 - told.mean(dim=(1, 3)))[:, None, :, None]
    return values.reshape(noise.shape)


def flow_loss(networks: FlowNetworks, gallery: Gallery, batch: Batch, tokens: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the velocity at random times, those near 0 weighed less, and the cells' loss
    (`CellReader.loss`): scalars, float32.

    tokens: how many image tokens of each scene are looked at, those of `picked`; None: all.
    """
    device, bucket = gallery.device, gallery.buckets[batch.bucket]
    t5_ids, clip_ids, answers = (
        told.to(device, non_blocking=True) for told in (batch.t5_ids, batch.clip_ids, batch.answers)
    )
    image, leeway = gallery.show(batch)
    # Made on the device: a copy would wait for the step before.
    with device:
        img_ids, txt_ids = image_ids(bucket.rows, bucket.columns), text_ids(t5_ids.shape[1])
    img_ids, txt_ids = (ids.expand(len(image), -1, -1) for ids in (img_ids, txt_ids))
    if tokens is not None:
        seen = picked(answers, tokens)[..., None]  # (B, tokens, 1)
        image, img_ids, answers = (torch.take_along_dim(one, seen, dim=1) for one in (image, img_ids, answers))
    # What is not looked at tells nothing: the noise of what is, alone, has the leeway in its means.
    noise = steered(torch.randn_like(image), leeway)
    t = draw_times(len(image), device)
    mixed = torch.lerp(image, noise, t[:, None, None])
    with torch.autocast(device.type, torch.bfloat16):
        predicted = networks.transformer(mixed, img_ids, networks.t5(t5_ids), txt_ids, t, networks.clip(clip_ids))
        read = networks.cells.loss(answers)
    # The error of the velocity that follows from a predicted image is that image's, over t.
    errors = (predicted.float() - image) / t.clamp(min=NEAREST)[:, None, None]
    return errors.square().mean(), read


def picked(answers: Tensor, count: int) -> Tensor:
    """Return the numbers of `count` image tokens of each scene, in order: the first and the last, which tell the
    canvas's extent (`layers.places`), then any where things are, then any others: (B, count), int64.

    answers: of `cells.right_answers`, (B, L, Q).
    """
    order = torch.rand(answers.shape[:2], device=answers.device) + (answers[..., 0] > 0)
    order[:, [0, -1]] = 2.0
    return order.topk(count, dim=1).indices.sort(dim=1).values
