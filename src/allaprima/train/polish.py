"""Polish the decoder of `sketch` with the encoder as it is, on whole scenes.

The transformer was fitted to the encoder's latents, so the encoder must not move any more; the decoder may, and gains
from whole canvases of every ratio, whose norms see what they will see when it paints, and from some noise on its
latents, so that it makes something clean of what is not quite right. With noise up to 0.4 it became cautious.
"""

from pathlib import Path

import torch

from allaprima.flux import Autoencoder
from allaprima.train.autoencoder import picture_loss, score_psnr
from allaprima.train.fit import Fit, device_of
from allaprima.train.optimizers import flatten_kernels, make_optimizers, restore_kernels
from allaprima.train.pictures import Painters, pick_canvas, to_signed
from allaprima.train.scenes import POLISH_FROM, VALIDATION_FROM

BATCH = 4
MUON_RATE, RATE = 0.01, 1e-3
#: The largest deviation of the noise on a latent, of which the deviation itself is about one.
MOST_NOISE = 0.2


def polish_decoder(folder: Path, autoencoder: Autoencoder, painters: Painters, minutes: float, scenes: int) -> None:
    """Improve the decoder in place, on its device, for that many minutes (over all runs), with checkpoints in `folder`.

    scenes: how many are drawn up front.
    """
    device = device_of(autoencoder)
    decoder = autoencoder.decoder.train()
    optimizers = make_optimizers(
        decoder, flatten_kernels(decoder, (decoder.conv_in, decoder.conv_out)), MUON_RATE, RATE
    )
    fit = Fit(folder / "polish.ckpt", {"decoder": decoder}, optimizers, minutes, seed=3)
    pool = painters.pool(scenes, POLISH_FROM) if fit.share < 1 else []
    held_out = painters.pixels(range(VALIDATION_FROM, VALIDATION_FROM + 24))
    for step in fit.steps():
        drawn = pick_canvas(pool)
        picks = torch.randint(len(drawn), (BATCH,))
        pixels = to_signed(drawn[picks].to(device)).contiguous(memory_format=torch.channels_last)
        deviations = MOST_NOISE * torch.rand(BATCH, 1, 1, 1, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                z = autoencoder.encode(pixels)
            painted = autoencoder.decode(z + deviations * torch.randn_like(z))
        loss = picture_loss(painted.float() - pixels)
        fit.descend(loss)
        if step % 50 == 0:
            psnr = f" psnr {score_psnr(autoencoder, held_out):.2f} dB" if step % 200 == 0 else ""
            print(f"polish {fit.share:6.1%} step {step} loss {loss.item():.4f}{psnr}", flush=True)
    restore_kernels(decoder)
    print(f"polish done: {score_psnr(autoencoder, held_out):.2f} dB on held-out scenes", flush=True)
