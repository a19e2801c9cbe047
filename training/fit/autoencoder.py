"""Fit the autoencoder of `sketch` to scenes, and then its decoder alone.

Crops of drawn scenes at first, cut along the canvas's cells, since that is how the model will ever see them; then whole
scenes of every canvas, since that is what group norms will see when it paints. The loss is L1 on pixels and on their
differences to the neighbours (which keeps edges), a small penalty on large latents, and noise on the latents while
decoding, which makes the decoder forgive what the flow gets slightly wrong. At the end the latents' spread is folded
into the convolutions on both sides, so that the model's latents have unit variance and its configuration needs no
measured constants.

The decoder goes on alone, on whole scenes, by the logarithm of each picture's squared error, which is what PSNR is: so
a crowded scene, whose error is ten times a plain one's, does not outweigh it. A flow of the encoder's latents stays
valid meanwhile.
"""

from pathlib import Path

import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.latents import device_of
from training.data.rendering import Painters, pick_canvas, to_signed
from training.data.scenes import VALIDATION_FROM
from training.evaluate.psnr import score_psnr
from training.fit.loop import Fit
from training.fit.optimizers import flatten_kernels, make_optimizers, restore_kernels

#: Side of a crop in pixels: five cells.
CROP = 5 * SKETCH.token_px
#: Crops in a step, and whole scenes, which have about as many pixels.
CROPS, SCENES = 10, 2
#: Share of the minutes from which on scenes are whole.
WHOLE_FROM = 0.8
MUON_RATE, RATE = 0.03, 3e-3
#: The largest deviation of the noise on latents, which themselves deviate by about 1.7.
MOST_NOISE = 0.16
LATENT_PENALTY = 1e-3
#: The decoder's own fit: its rates as a share of the others, the noise on latents, which deviate by 1 by then, and how
#: much the logarithm of `picture_loss` counts, which keeps edges.
DECODER_RATES, DECODER_NOISE, EDGES_WEIGHT = 0.25, 0.06, 0.5
#: Squared error that a picture can't have: levels are rounded to about so much.
LEAST_ERROR = 1e-6
#: Validation scenes, which no fit sees, that tell how a fit goes on; `score` measures its error on more.
PSNR_SCENES = 24


def fit_autoencoder(folder: Path, painters: Painters, minutes: float, scenes: int, device: torch.device) -> Autoencoder:
    """Fit on a device for that many minutes (over all runs), with checkpoints in `folder`; return the fitted
    autoencoder, which is there too.

    scenes: how many are drawn up front.
    """
    torch.manual_seed(0)
    model = Autoencoder(SKETCH.autoencoder).to(device)
    ends = (model.encoder.conv_in, model.encoder.conv_out, model.decoder.conv_in, model.decoder.conv_out)
    optimizers = make_optimizers(model, flatten_kernels(model, ends), MUON_RATE, RATE)
    fit = Fit(folder / "autoencoder.ckpt", {"autoencoder": model}, optimizers, minutes, seed=0)
    pool = painters.pool(scenes) if fit.share < 1 else []
    validation = painters.pixels(range(VALIDATION_FROM, VALIDATION_FROM + PSNR_SCENES))
    for step in fit.steps():
        pixels = _crops(pool) if fit.share < WHOLE_FROM else _scenes(pool)
        loss = _loss(model, pixels.to(device))
        fit.descend(loss)
        if step % 100 == 0:
            psnr = f" psnr {score_psnr(model, validation):.2f} dB" if step % 1000 == 0 else ""
            print(f"autoencoder {fit.share:6.1%} step {step} loss {loss.item():.4f}{psnr}", flush=True)
    restore_kernels(model)
    print(f"autoencoder done: {score_psnr(model, validation):.2f} dB on validation scenes", flush=True)
    fold_spread(model, painters.pixels(range(256)))
    return model


def fit_decoder(
    folder: Path, autoencoder: Autoencoder, painters: Painters, minutes: float, scenes: int, device: torch.device
) -> None:
    """Fit a fitted autoencoder's decoder on, in place, for that many minutes (over all runs), with checkpoints in
    `folder`; the encoder stays as it is.

    scenes: how many are drawn up front.
    """
    decoder = autoencoder.decoder
    matrices = flatten_kernels(decoder, (decoder.conv_in, decoder.conv_out))
    optimizers = make_optimizers(decoder, matrices, DECODER_RATES * MUON_RATE, DECODER_RATES * RATE)
    fit = Fit(folder / "decoder.ckpt", {"decoder": decoder}, optimizers, minutes, seed=2)
    pool = painters.pool(scenes) if fit.share < 1 else []
    validation = painters.pixels(range(VALIDATION_FROM, VALIDATION_FROM + PSNR_SCENES))
    for step in fit.steps():
        loss = _decoder_loss(autoencoder, _scenes(pool).to(device))
        fit.descend(loss)
        if step % 100 == 0:
            psnr = f" psnr {score_psnr(autoencoder, validation):.2f} dB" if step % 500 == 0 else ""
            print(f"decoder {fit.share:6.1%} step {step} loss {loss.item():.4f}{psnr}", flush=True)
    restore_kernels(decoder)
    print(f"decoder done: {score_psnr(autoencoder, validation):.2f} dB on validation scenes", flush=True)


def _scenes(pool: list[Tensor]) -> Tensor:
    """Return whole scenes of one canvas: (SCENES, 3, height, width), uint8."""
    scenes = pick_canvas(pool)
    return scenes[torch.randint(len(scenes), (SCENES,))]


def _crops(pool: list[Tensor]) -> Tensor:
    """Return crops of scenes that all share a canvas: (CROPS, 3, CROP, CROP), uint8."""
    scenes = pick_canvas(pool)
    picks = torch.randint(len(scenes), (CROPS,))
    ys, xs = (torch.randint((side - CROP) // SKETCH.token_px + 1, (CROPS,)) for side in scenes.shape[2:])
    crops = [
        scenes[i, :, y : y + CROP, x : x + CROP]
        for i, y, x in zip(picks, ys * SKETCH.token_px, xs * SKETCH.token_px, strict=True)
    ]
    return torch.stack(crops)


def _loss(model: Autoencoder, pixels: Tensor) -> Tensor:
    signed = to_signed(pixels).contiguous(memory_format=torch.channels_last)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        z = model.encode(signed)
        deviations = MOST_NOISE * torch.rand(len(z), 1, 1, 1, device=z.device)
        painted = model.decode(z + deviations * torch.randn_like(z))
    return picture_loss(painted.float() - signed) + LATENT_PENALTY * z.float().square().mean()


def _decoder_loss(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    signed = to_signed(pixels).contiguous(memory_format=torch.channels_last)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        with torch.no_grad():
            z = autoencoder.encode(signed)
        deviations = DECODER_NOISE * torch.rand(len(z), 1, 1, 1, device=z.device)
        painted = autoencoder.decode(z + deviations * torch.randn_like(z))
    return decoder_loss(painted.float() - signed)


def decoder_loss(error: Tensor) -> Tensor:
    """Return the mean over pictures of the logarithm of an error's mean square (B, 3, Y, X), and `EDGES_WEIGHT` of that
    of its `picture_loss`.
    """
    squares = error.square().mean(dim=(1, 2, 3))
    return (squares + LEAST_ERROR).log().mean() + EDGES_WEIGHT * picture_loss(error).log()


def picture_loss(error: Tensor) -> Tensor:
    """Return the mean size of an error (B, 3, Y, X) and of its differences to the right and downwards."""
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + edges


@torch.no_grad()
def fold_spread(model: Autoencoder, pixels: Tensor) -> None:
    """Divide each latent channel by its standard deviation in the encoder and multiply by it in the decoder.

    pixels: of whole scenes, uint8 (N, 3, Y, X).
    """
    device = device_of(model)
    z = torch.cat([model.encode(to_signed(part.to(device))) for part in pixels.split(16)])
    spread = z.std(dim=(0, 2, 3))
    channels = model.config.z_channels
    model.encoder.conv_out.weight[:channels] /= spread[:, None, None, None]
    assert model.encoder.conv_out.bias is not None
    model.encoder.conv_out.bias[:channels] /= spread
    model.decoder.conv_in.weight *= spread[None, :, None, None]
