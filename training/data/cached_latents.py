"""The scenes that the flow is fitted to, as latents: drawn and encoded once per encoder, in chunks that are kept.

A run that is broken off goes on at its chunk, and more scenes than last time add to what is there. A scene that is
composed or laid out otherwise than when it was kept is drawn again; code that paints otherwise is not noticed. Chunks
of another encoder have other names and are left alone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.latents import device_of, encoded, fingerprint
from training.data.rendering import Painters, canvas_px
from training.data.scenes import SIZES, Scene, compose, placed
from training.data.storage import write_whole

#: Scenes in a chunk.
CHUNK = 512
#: Numbers of scenes between two canvases' first ones: more than are ever drawn of one.
APART = 1_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """Scenes of one grid, with their latents."""

    rows: int
    columns: int
    scenes: list[Scene]
    #: (number of scenes, L, C), bfloat16.
    latents: Tensor
    #: (number of scenes, LEEWAY), float32.
    leeway: Tensor


def make_buckets(autoencoder: Autoencoder, painters: Painters, count: int, folder: Path) -> list[Bucket]:
    """Return buckets of about `count` scenes in all, on the autoencoder's device; latents are kept in `folder`."""
    buckets = []
    device, encoder = device_of(autoencoder), fingerprint(autoencoder.encoder)
    for i, ((width, height), share) in enumerate(SIZES.items()):
        size = canvas_px(width, height)
        columns, rows = (side // SKETCH.token_px for side in size)
        seeds = range(i * APART, i * APART + max(1, round(count * share)))
        scenes = [compose(seed, *size) for seed in seeds]
        chunks = []
        for first in range(0, len(seeds), CHUNK):
            kept = folder / f"latents-{encoder}-{size[0]}x{size[1]}-{seeds[first]}.pt"
            part = slice(first, first + CHUNK)
            chunks.append(_chunk(autoencoder, painters, seeds[part], scenes[part], kept))
        leeway = torch.tensor([scene.leeway for scene in scenes], device=device)
        buckets.append(Bucket(rows, columns, scenes, torch.cat(chunks).to(device), leeway))
        print(f"latents {rows}x{columns}: {len(seeds)}", flush=True)
    return buckets


def _chunk(autoencoder: Autoencoder, painters: Painters, seeds: range, scenes: list[Scene], kept: Path) -> Tensor:
    """Return the latents of at most `CHUNK` scenes of one canvas: (len(seeds), L, C). Those that are kept are read;
    where others had to be drawn, what is returned is kept instead.
    """
    names = [_name(scene) for scene in scenes]
    latents = dict(zip(*torch.load(kept, weights_only=True), strict=True)) if kept.exists() else {}
    missing = [i for i, name in enumerate(names) if name not in latents]
    if missing:
        device, size = device_of(autoencoder), (scenes[0].width, scenes[0].height)
        drawn = painters.drawn([seeds[i] for i in missing], *size)
        made = torch.cat([encoded(autoencoder, pixels.to(device)).cpu() for pixels in drawn])
        latents |= dict(zip((names[i] for i in missing), made, strict=True))
    chunk = torch.stack([latents[name] for name in names])
    if missing:
        write_whole((names, chunk), kept)
    return chunk


def _name(scene: Scene) -> str:
    """Return hex digits that tell a scene, and how it is laid out, from others."""
    return hashlib.sha256(repr((scene, placed(scene))).encode()).hexdigest()[:16]
