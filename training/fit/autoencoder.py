"""Fit of the autoencoder of `sketch`, and then of its decoder alone.

The autoencoder is fitted first to crops of scenes, aligned to the canvas's cells like objects, and then to whole scenes
of every canvas, so that the group norms have the statistics of whole images. The loss is L1 on pixels and on
differences of neighbouring pixels, which preserves edges, plus a small penalty on large latents. Noise is added to the
latents before decoding, so that the decoder is robust to small errors of the flow. At the end the standard deviation of
each latent channel is folded into the adjacent convolutions. The latents then have unit variance, and the model's
configuration needs no measured constants.

The decoder is then fitted to whole scenes with the logarithm of each image's squared error, as in PSNR. So a crowded
scene, whose error is ten times that of a plain one, has no larger weight. The encoder does not change, so a flow that
was fitted to its latents remains valid.
"""

from pathlib import Path

import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.latents import device_of
from training.data.rendering import SceneRenderer, sample_canvas, to_signed
from training.data.scenes import VALIDATION_FROM
from training.evaluate.psnr import score_psnr
from training.fit.loop import Fit
from training.fit.optimizers import flatten_kernels, make_optimizers, restore_kernels

#: Side of a crop in pixels: five cells.
CROP = 5 * SKETCH.token_px
#: Number of crops in a step, or of whole scenes, which have about as many pixels.
CROPS, SCENES = 10, 2
#: Progress, 0 to 1, from which on whole scenes are used.
WHOLE_FROM = 0.8
MUON_RATE, RATE = 0.03, 3e-3
#: Largest standard deviation of the noise on latents. At this stage the latents have a standard deviation of about 1.7.
MAX_NOISE = 0.16
LATENT_PENALTY = 1e-3
#: For the decoder's fit: factor of the learning rates, largest standard deviation of the noise on latents of unit
#: variance, and weight of the logarithm of `image_loss`, which preserves edges.
DECODER_RATES, DECODER_NOISE, EDGES_WEIGHT = 0.25, 0.06, 0.5
#: Constant that is added to the squared error before the logarithm; about the error of rounding to 8 bits.
LEAST_ERROR = 1e-6
#: Number of validation scenes for the progress of a fit; `evaluate.score` measures the error on more scenes.
PSNR_SCENES = 24
#: Number of scenes from which the standard deviations of the latents are measured.
DEVIATION_SCENES = 256


def fit_autoencoder(
    folder: Path, renderer: SceneRenderer, minutes: float, scenes: int, device: torch.device
) -> Autoencoder:
    """Fit a new autoencoder for `minutes`, summed over all runs, and return it, on `device`.

    folder: of the checkpoints. scenes: number of scenes to draw as training data.
    """
    torch.manual_seed(0)
    model = Autoencoder(SKETCH.autoencoder).to(device)
    ends = (model.encoder.conv_in, model.encoder.conv_out, model.decoder.conv_in, model.decoder.conv_out)
    optimizers = make_optimizers(model, flatten_kernels(model, ends), MUON_RATE, RATE)
    fit = Fit(folder / "autoencoder.ckpt", {"autoencoder": model}, optimizers, minutes, seed=0)
    pool = renderer.render_pool(scenes) if fit.progress < 1 else []
    validation = renderer.render(range(VALIDATION_FROM, VALIDATION_FROM + PSNR_SCENES))
    for step in fit.steps():
        pixels = _crops(pool) if fit.progress < WHOLE_FROM else _scenes(pool)
        loss = _loss(model, pixels.to(device))
        fit.descend(loss)
        if step % 100 == 0:
            psnr = f" psnr {score_psnr(model, validation):.2f} dB" if step % 1000 == 0 else ""
            print(f"autoencoder {fit.progress:6.1%} step {step} loss {loss.item():.4f}{psnr}", flush=True)
    restore_kernels(model)
    print(f"autoencoder done: {score_psnr(model, validation):.2f} dB on validation scenes", flush=True)
    fold_deviations(model, renderer.render(range(DEVIATION_SCENES)))
    return model


def fit_decoder(
    folder: Path, autoencoder: Autoencoder, renderer: SceneRenderer, minutes: float, scenes: int, device: torch.device
) -> None:
    """Fit the decoder of an autoencoder further, in place, for `minutes`, summed over all runs. The encoder is fixed.

    folder: of the checkpoints. scenes: number of scenes to draw as training data.
    """
    decoder = autoencoder.decoder
    matrices = flatten_kernels(decoder, (decoder.conv_in, decoder.conv_out))
    optimizers = make_optimizers(decoder, matrices, DECODER_RATES * MUON_RATE, DECODER_RATES * RATE)
    fit = Fit(folder / "decoder.ckpt", {"decoder": decoder}, optimizers, minutes, seed=2)
    pool = renderer.render_pool(scenes) if fit.progress < 1 else []
    validation = renderer.render(range(VALIDATION_FROM, VALIDATION_FROM + PSNR_SCENES))
    for step in fit.steps():
        loss = _decoder_loss(autoencoder, _scenes(pool).to(device))
        fit.descend(loss)
        if step % 100 == 0:
            psnr = f" psnr {score_psnr(autoencoder, validation):.2f} dB" if step % 500 == 0 else ""
            print(f"decoder {fit.progress:6.1%} step {step} loss {loss.item():.4f}{psnr}", flush=True)
    restore_kernels(decoder)
    print(f"decoder done: {score_psnr(autoencoder, validation):.2f} dB on validation scenes", flush=True)


def _scenes(pool: list[Tensor]) -> Tensor:
    """Return random whole scenes of one canvas: (SCENES, 3, height, width), uint8."""
    scenes = sample_canvas(pool)
    return scenes[torch.randint(len(scenes), (SCENES,))]


def _crops(pool: list[Tensor]) -> Tensor:
    """Return random crops of scenes of one canvas: (CROPS, 3, CROP, CROP), uint8."""
    scenes = sample_canvas(pool)
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
        deviations = MAX_NOISE * torch.rand(len(z), 1, 1, 1, device=z.device)
        decoded = model.decode(z + deviations * torch.randn_like(z))
    return image_loss(decoded.float() - signed) + LATENT_PENALTY * z.float().square().mean()


def _decoder_loss(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    signed = to_signed(pixels).contiguous(memory_format=torch.channels_last)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        with torch.no_grad():
            z = autoencoder.encode(signed)
        deviations = DECODER_NOISE * torch.rand(len(z), 1, 1, 1, device=z.device)
        decoded = autoencoder.decode(z + deviations * torch.randn_like(z))
    return decoder_loss(decoded.float() - signed)


def decoder_loss(error: Tensor) -> Tensor:
    """Return the mean over images of log(mean squared error), plus `EDGES_WEIGHT` times log(`image_loss`): a scalar.

    error: (B, 3, Y, X), the difference of decoded and original images.
    """
    squares = error.square().mean(dim=(1, 2, 3))
    return (squares + LEAST_ERROR).log().mean() + EDGES_WEIGHT * image_loss(error).log()


def image_loss(error: Tensor) -> Tensor:
    """Return the mean absolute error of pixels, plus those of horizontal and of vertical differences: a scalar.

    error: (B, 3, Y, X), the difference of decoded and original images.
    """
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + edges


@torch.no_grad()
def fold_deviations(model: Autoencoder, pixels: Tensor) -> None:
    """Divide each latent channel by its standard deviation in the encoder, and multiply by it in the decoder, in place.

    The weights of the adjacent convolutions change. pixels: whole scenes, from which the deviations are measured, uint8
    (N, 3, Y, X).
    """
    device = device_of(model)
    z = torch.cat([model.encode(to_signed(part.to(device))) for part in pixels.split(16)])
    deviation = z.std(dim=(0, 2, 3))
    channels = model.config.z_channels
    model.encoder.conv_out.weight[:channels] /= deviation[:, None, None, None]
    assert model.encoder.conv_out.bias is not None
    model.encoder.conv_out.bias[:channels] /= deviation
    model.decoder.conv_in.weight *= deviation[None, :, None, None]
