"""Fit of the flow: the transformer of `sketch` and its two text encoders, jointly, as a rectified flow on latents.

The text encoders are pretrained (`text_encoders`) and have a lower learning rate. The transformer predicts the
noise-free latents, from which the velocity is computed (Li and He 2025, 2511.13720): its hidden width is too small for
the noise. Times are sampled from a logit-normal distribution (Esser et al. 2024, 2403.03206, section 3.1), except that
half of them are 1, where the input is pure noise. Muon (Jordan et al. 2024) optimizes the matrices of the blocks, AdamW
all other parameters.

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
#: Number of scenes in a step, and the learning rates for this number. For other numbers the rates scale with the square
#: root. The rule is derived for Adam (Malladi et al. 2022, 2205.10287); with Muon it was tried up to 256 scenes.
BATCH = 48
MUON_RATE = 0.01
ADAM_RATE = 1e-3
ENCODER_RATE = 3e-4
#: Errors at earlier times have the weight of errors at this time, since they are too small to be visible.
MIN_WEIGHTED_TIME = 0.6
#: Weight of the layout probe's loss. With it, the probe's gradient in the blocks before the probe is about as large as
#: the gradient of the velocity's error.
LAYOUT_PROBE_WEIGHT = 0.3
#: Until progress `SPARSE_UNTIL`, most steps use only `SPARSE_TOKENS` image tokens of a scene, preferably those of
#: objects. Most tokens belong to the background, which the model learns early but which costs as much as objects. Zheng
#: et al. 2023 (2306.09305) also fit a transformer to a part of the tokens first and to all tokens at the end. The phase
#: must be short: the choice of tokens reveals the positions of objects, and the model would infer them from the choice
#: instead of from the noise.
SPARSE_TOKENS, SPARSE_UNTIL = 48, 0.12
#: In that phase every fourth step uses all tokens, since a model that sees no whole canvas generates objects
#: everywhere.
DENSE_EVERY = 4


class FlowNetworks(nn.Module):
    """The transformer, the two text encoders and the layout probe, which are fitted jointly."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Flux(SKETCH.transformer)
        self.t5 = T5Encoder(SKETCH.t5)
        self.clip = CLIPTextEncoder(SKETCH.clip)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        init_directional_heads(self.t5)
        # With these zeros, the initial prediction is zero and each block is the identity.
        for name, parameter in self.transformer.named_parameters():
            if "mod" in name.lower() or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
        # The attribute's name is part of the format of flow.ckpt.
        self.cells = LayoutProbe(self.transformer)


def flow_optimizers(networks: FlowNetworks, batch: int = BATCH) -> Optimizers:
    """Return Muon for the matrices of the blocks and AdamW for all other parameters. batch: number of scenes in a step.

    AdamW optimizes the text encoders because the size of Muon's update does not depend on the gradient: in a small
    batch their gradients are mostly noise, and the embeddings would drift at random.
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
    rate_scale = (batch / BATCH) ** 0.5
    groups = [
        {"params": rest, "lr": rate_scale * ADAM_RATE},
        {"params": encoders, "lr": rate_scale * ENCODER_RATE},
        {"params": probe, "lr": rate_scale * ADAM_RATE},
    ]
    return [
        torch.optim.Muon(matrices, lr=rate_scale * MUON_RATE, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def draw_times(count: int, device: torch.device) -> Tensor:
    """Return random times in [0, 1], (count,), float32, on a device.

    Half of the times are 1 (pure noise), since the first step determines the content of the image. Of the others, seven
    in eight are logit-normal (mean 0.5, scale 1.2) and one in eight is uniform.
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
    """Fit the networks in place for `minutes`, summed over all runs. They must be on the device of the store.

    folder: of the checkpoints. take_snapshot: called with the number of steps every `SNAPSHOT_S` seconds and at the
    end. compiled: whether to compile the transformer's blocks.
    """
    if compiled:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
        compile_blocks(networks.transformer)
    optimizers = flow_optimizers(networks, mix.drawn + mix.composites)
    fit = Fit(folder / FLOW_CHECKPOINT, {"flow": networks}, optimizers, minutes, FLOW_SEED)
    smooth = None
    batches = batch_loader(store, fit.step, mix) if fit.progress < 1 else ()
    # `zip` advances the iterator of steps first, so no batch is prepared after the last step.
    for step, batch in zip(fit.steps(), batches, strict=False):
        loss, probe_loss = flow_loss(networks, store, batch, token_count(fit.progress, step))
        fit.descend(loss + LAYOUT_PROBE_WEIGHT * probe_loss)
        # The losses remain on the device, since reading them at every step would synchronise with the GPU.
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
    """Compile each block separately, so that blocks of one kind share the compiled code.

    On a CPU the blocks are compiled once per canvas. On a GPU that would take longer than a short fit, so they are
    compiled once with dynamic shapes. Compiling the whole transformer took minutes longer and made a step no faster.
    """
    for block in (*transformer.double_blocks, *transformer.single_blocks):
        block.compile(dynamic=device_of(transformer).type != "cpu")


def token_count(progress: float, step: int) -> int | None:
    """Return the number of image tokens of a scene that a step uses; None: all. progress: of the fit, 0 to 1."""
    return SPARSE_TOKENS if progress < SPARSE_UNTIL and step % DENSE_EVERY != 0 else None


def steer_noise(noise: Tensor, free_factors: Tensor) -> Tensor:
    """Return noise whose mean over latent channel k of the image, scaled to unit variance, is free factor k.

    noise: (B, L, C); free_factors: (B, K). Both are standard normal, and so is the result, (B, L, C). With it, the
    noise determines the attributes of the image that the caption does not state, and `layers.latent_stats` gives its
    means to every image token. Without it, the first step could only predict the mean of all images of the prompt, and
    images of different seeds would differ little. Pooladian et al. 2023 (2304.14772) also pair noise with data, by a
    search.
    """
    batch, length, _ = noise.shape
    count = free_factors.shape[1]
    # The four values of a latent channel in a token are adjacent (`latents.pack`).
    values = noise.reshape(batch, length, -1, 4).clone()
    steered = values[:, :, :count]
    steered += (free_factors * (4 * length) ** -0.5 - steered.mean(dim=(1, 3)))[:, None, :, None]
    return values.reshape(noise.shape)


def flow_loss(networks: FlowNetworks, store: LatentStore, batch: Batch, tokens: int | None) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the velocity at random times and the loss of the layout probe: scalars, float32.

    Errors at times below `MIN_WEIGHTED_TIME` have a lower weight. tokens: number of image tokens of each scene to use,
    which `select_tokens` selects; None: all.
    """
    device, bucket = store.device, store.buckets[batch.bucket]
    t5_ids, clip_ids, labels = (
        part.to(device, non_blocking=True) for part in (batch.t5_ids, batch.clip_ids, batch.labels)
    )
    image, free_factors = store.load(batch)
    # The ids are created on the device, since a copy would wait for the previous step.
    with device:
        img_ids, txt_ids = image_ids(bucket.rows, bucket.columns), text_ids(t5_ids.shape[1])
    img_ids, txt_ids = (ids.expand(len(image), -1, -1) for ids in (img_ids, txt_ids))
    if tokens is not None:
        used = select_tokens(labels, tokens)[..., None]  # (B, tokens, 1)
        image, img_ids, labels = (torch.take_along_dim(one, used, dim=1) for one in (image, img_ids, labels))
    # `steer_noise` sets the means over the selected tokens, since the transformer has no others.
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

    The first and the last token are always selected, since `layers.position_features` derives the extent of the canvas
    from them. The others are random tokens of objects and, if there are too few, random tokens of the background.
    labels: the result of `layout_labels`, (B, L, Q).
    """
    order = torch.rand(labels.shape[:2], device=labels.device) + (labels[..., 0] > 0)
    order[:, [0, -1]] = 2.0
    return order.topk(count, dim=1).indices.sort(dim=1).values
