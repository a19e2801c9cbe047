"""Polish the decoder of `sketch` with the encoder as it is, on whole scenes.

The transformer was fitted to the encoder's latents, so the encoder must not move any more; the decoder may, and gains
from larger pictures, a little noise on its latents, and a falling learning rate.
"""

from pathlib import Path

import torch

from allaprima.flux import Autoencoder
from allaprima.train.art import Art
from allaprima.train.autoencoder import HELD_OUT_SEED, LATENT_NOISE, picture_loss, scene_pixels, score_psnr, to_signed
from allaprima.train.progress import Progress

BATCH = 4
RATE = 1e-3
#: Scenes drawn up front, apart from those that the encoder was fitted to.
POOL_SEEDS = range(50_000, 51_500)


def polish_decoder(folder: Path, autoencoder: Autoencoder, art: Art, minutes: float) -> None:
    """Improve the decoder in place for that many minutes (over all runs), with checkpoints in `folder`."""
    torch.manual_seed(3)
    decoder = autoencoder.decoder.train()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    progress = Progress(minutes)
    checkpoint = folder / "polish.ckpt"
    progress.resume(checkpoint, {"decoder": decoder}, [optimizer])
    pool = scene_pixels(POOL_SEEDS, art)
    held_out = scene_pixels(range(HELD_OUT_SEED, HELD_OUT_SEED + 24), art)
    for step in progress.steps():
        for group in optimizer.param_groups:
            group["lr"] = RATE * progress.rate
        pixels = to_signed(pool[torch.randint(len(pool), (BATCH,))]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                z = autoencoder.encode(pixels)
            painted = autoencoder.decode(z + LATENT_NOISE * torch.randn_like(z))
        loss = picture_loss(painted.float() - pixels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            psnr = score_psnr(autoencoder, held_out) if step % 200 == 0 else float("nan")
            print(f"polish {progress.share:6.1%} step {step} loss {loss.item():.4f} psnr {psnr:.2f} dB", flush=True)
        if progress.is_checkpoint_due():
            progress.save(checkpoint, {"decoder": decoder}, [optimizer])
    progress.save(checkpoint, {"decoder": decoder}, [optimizer])
    print(f"polish done: {score_psnr(autoencoder, held_out):.2f} dB on held-out scenes", flush=True)
