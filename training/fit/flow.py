"""Fit of the flow: the transformer of `sketch` and its two text encoders, jointly, as a rectified flow on latents.

The text encoders are pretrained (`text_encoders`) and learn at a lower rate. The transformer predicts the image, from
which the velocity follows (Li and He 2025, 2511.13720): its narrow residual stream cannot carry the noise as well.
Times are drawn from a logit-normal distribution (Esser et al. 2024, 2403.03206, section 3.1), and half of them are 1,
where only the prompt is known. Muon (Jordan et al. 2024) optimizes the matrices of the blocks, AdamW all else.

Dimension key: B batch, L image tokens, C latent values per token.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH, CLIPTextEncoder, Flux, T5Encoder
from allaprima.flux.latents import image_ids, text_ids
from training.data.batches import Batch, LatentStore, Mix, batch_loader
from training.data.latents import device_of
from training.fit.layout_probe import LayoutProbe
from training.fit.loop import Fit
from training.fit.optimizers import Optimizers
from training.fit.text_encoders import init_directional_heads

FLOW_CHECKPOINT, FLOW_SEED = "flow.ckpt", 1
#: Scenes in a step, and the learning rates for this number; for others they scale with its square root. The rule is
#: derived for Adam (Malladi et al. 2022, 2205.10287); with Muon it was tried up to 256.
BATCH = 48
MUON_RATE = 0.01
ADAM_RATE = 1e-3
ENCODER_RATE = 3e-4
#: Errors at times below this are weighted like those at this time: there they are too small to be visible.
MIN_WEIGHTED_TIME = 0.6
#: Weight of the layout probe's loss, with which its gradient in the blocks before the probe is about as large as that
#: of the image's error.
LAYOUT_PROBE_WEIGHT = 0.3
#: Until this progress most steps use only so many image tokens of a scene, preferably those of objects. Most tokens are
#: of the background, which is learned soon and costs as much. Zheng et al. 2023 (2306.09305) fit a transformer to a
#: part of the tokens first and to all at the end. It must not last long: the choice of tokens reveals the positions
#: of objects, and the model would infer them from it instead of the noise.
SPARSE_TOKENS, SPARSE_UNTIL = 48, 0.12
#: Every fourth step uses all tokens even then: a model that never sees a whole canvas generates objects everywhere.
DENSE_EVERY = 4


class FlowNetworks(nn.Module):
    """The three networks that are fitted jointly, and the layout probe."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Flux(SKETCH.transformer)
        self.t5 = T5Encoder(SKETCH.t5)
        self.clip = CLIPTextEncoder(SKETCH.clip)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        init_directional_heads(self.t5)
        # At first the predicted image is zero and each block is the identity.
        for name, parameter in self.transformer.named_parameters():
            if "mod" in name.lower() or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
        # The name is that of the probe's tensors in a work folder's flow.ckpt.
        self.cells = LayoutProbe(self.transformer)


def flow_optimizers(networks: FlowNetworks, batch: int = BATCH) -> Optimizers:
    """Return Muon for the matrices of the blocks, and AdamW for the rest, with the rates for a batch of that size.

    The text encoders are left to AdamW because Muon's update has the same size for every gradient: in a small batch
    their gradients are mostly noise, and the embeddings would drift at random.
    """
    matrices: list[nn.Parameter] = []
    encoders: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    probe = list(networks.cells.parameters())
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
        {"params": probe, "lr": more * ADAM_RATE},
    ]
    return [
        torch.optim.Muon(matrices, lr=more * MUON_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def draw_times(count: int, device: torch.device) -> Tensor:
    """Return random times in [0, 1], float32 (count,), on a device.

    Half are 1, pure noise, since the first step decides what the image shows. Of the others seven in eight are
    logit-normal (mean 0.5, scale 1.2) and one in eight is uniform.
    """
    times = torch.sigmoid(0.5 + 1.2 * torch.randn(count, device=device))
    uniform, first, second = torch.rand(3, count, device=device)
    times = torch.where(first < 0.125, uniform, times)
    return torch.where(second < 0.5, torch.ones_like(times), times)


def fit_flow(
    folder: Path,
    networks: FlowNetworks,
    store: LatentStore,
    minutes: float,
    take_snapshot: Callable[[int], None],
    *,
    mix: Mix,
    compiled: bool = False,
) -> None:
    """Fit in place for `minutes` (over all runs), with checkpoints in `folder`. The networks and the store must be on
    the same device.

    take_snapshot: called with the number of steps, every `SNAPSHOT_S` seconds and at the end. compiled: whether to
    compile the transformer's blocks.
    """
    if compiled:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
        compile_blocks(networks.transformer)
    optimizers = flow_optimizers(networks, mix.drawn + mix.composites)
    fit = Fit(folder / FLOW_CHECKPOINT, {"flow": networks}, optimizers, minutes, FLOW_SEED)
    smooth = None
    batches = batch_loader(store, fit.step, mix) if fit.progress < 1 else ()
    # The iterator of steps comes first, so no batch is prepared after the last step.
    for step, batch in zip(fit.steps(), batches, strict=False):
        loss, probe_loss = flow_loss(networks, store, batch, token_count(fit.progress, step))
        fit.descend(loss + LAYOUT_PROBE_WEIGHT * probe_loss)
        # Kept on the device: reading the losses at every step would make a GPU wait.
        losses = torch.stack((loss, probe_loss)).detach()
        smooth = losses if smooth is None else smooth.lerp(losses, 0.01)
        if step % 100 == 0:
            print(f"flow {fit.progress:6.1%} step {step} {_format_losses(smooth)}", flush=True)
        if fit.is_snapshot_due():
            take_snapshot(step + 1)
    print("flow done" + ("" if smooth is None else f": step {fit.step} {_format_losses(smooth)}"), flush=True)
    take_snapshot(fit.step)


def _format_losses(losses: Tensor) -> str:
    return "loss {:.4f} layout {:.4f}".format(*losses.tolist())


def compile_blocks(transformer: Flux) -> None:
    """Compile each block separately, so that blocks of one kind share the code: on a CPU once for each canvas,
    on a GPU, where that would take longer than a short fit, once with dynamic shapes.

    Compiling the whole transformer took minutes longer and made a step no faster.
    """
    for block in (*transformer.double_blocks, *transformer.single_blocks):
        block.compile(dynamic=device_of(transformer).type != "cpu")


def token_count(progress: float, step: int) -> int | None:
    """Return the number of image tokens of a scene that a step uses, given the progress of the fit; None: all."""
    return SPARSE_TOKENS if progress < SPARSE_UNTIL and step % DENSE_EVERY != 0 else None


def steer_noise(noise: Tensor, free_factors: Tensor) -> Tensor:
    """Return noise whose mean over latent channel k of the image, scaled to unit variance, is free factor k.

    Noise (B, L, C) and free factors (B, K) are standard normal, and so is the result. In a fit the noise thereby
    determines what the caption leaves open about the image, and the transformer gives the means to every image token.
    Without that, the first step could only predict the mean of all images that match the prompt, and seeds would differ
    little. Pairing noise with data follows Pooladian et al. 2023 (2304.14772), who search for pairs.
    """
    batch, length, _ = noise.shape
    count = free_factors.shape[1]
    # The four values of a latent channel in a token are adjacent (`latents.pack`).
    values = noise.reshape(batch, length, -1, 4).clone()
    steered = values[:, :, :count]
    steered += (free_factors * (4 * length) ** -0.5 - steered.mean(dim=(1, 3)))[:, None, :, None]
    return values.reshape(noise.shape)


def flow_loss(networks: FlowNetworks, store: LatentStore, batch: Batch, tokens: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the velocity at random times, with times near 0 weighted less, and the loss of
    the layout probe: scalars, float32.

    tokens: number of image tokens of each scene to use, chosen by `select_tokens`; None: all.
    """
    device, bucket = store.device, store.buckets[batch.bucket]
    t5_ids, clip_ids, labels = (
        part.to(device, non_blocking=True) for part in (batch.t5_ids, batch.clip_ids, batch.labels)
    )
    image, free_factors = store.load(batch)
    # Created on the device: a copy would wait for the previous step.
    with device:
        img_ids, txt_ids = image_ids(bucket.rows, bucket.columns), text_ids(t5_ids.shape[1])
    img_ids, txt_ids = (ids.expand(len(image), -1, -1) for ids in (img_ids, txt_ids))
    if tokens is not None:
        used = select_tokens(labels, tokens)[..., None]  # (B, tokens, 1)
        image, img_ids, labels = (torch.take_along_dim(one, used, dim=1) for one in (image, img_ids, labels))
    # The means are those of the tokens in use, since the transformer sees no others.
    noise = steer_noise(torch.randn_like(image), free_factors)
    t = draw_times(len(image), device)
    mixed = torch.lerp(image, noise, t[:, None, None])
    with torch.autocast(device.type, torch.bfloat16):
        predicted = networks.transformer(mixed, img_ids, networks.t5(t5_ids), txt_ids, t, networks.clip(clip_ids))
        probe_loss = networks.cells.loss(labels)
    # velocity = (noisy - image) / t, so its error is the image's error over t.
    errors = (predicted.float() - image) / t.clamp(min=MIN_WEIGHTED_TIME)[:, None, None]
    return errors.square().mean(), probe_loss


def select_tokens(labels: Tensor, count: int) -> Tensor:
    """Return the indices of `count` image tokens of each scene, ascending: (B, count), int64.

    They include the first and the last token, from which the transformer infers the extent of the canvas, then random
    tokens of objects, then random others. labels: `layout_labels`, (B, L, Q).
    """
    order = torch.rand(labels.shape[:2], device=labels.device) + (labels[..., 0] > 0)
    order[:, [0, -1]] = 2.0
    return order.topk(count, dim=1).indices.sort(dim=1).values
