"""The scenes that the flow is fitted to, as latents: drawn and encoded once per autoencoder, in chunks that are kept.

More scenes than last time add chunks to those that are there; a run that is broken off goes on at its chunk.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from allaprima.flux.latents import pack
from allaprima.train.art import Art
from allaprima.train.pictures import canvas_px, scene_pixels, to_signed
from allaprima.train.scenes import SIZES, Scene, compose

#: Scenes in a chunk, and those that are drawn and encoded at a time.
CHUNK, PART = 512, 32
#: Numbers of scenes between two canvases' first ones: more than are ever drawn of one.
APART = 1_000_000
#: Processes that draw while the latents of what they drew before are computed.
PAINTERS = 2


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


def make_buckets(autoencoder: Autoencoder, art: Art, count: int, folder: Path) -> list[Bucket]:
    """Return buckets of about `count` scenes in all; their latents are kept in `folder`."""
    buckets = []
    for i, ((width, height), share) in enumerate(SIZES.items()):
        size = canvas_px(width, height)
        columns, rows = (side // SKETCH.token_px for side in size)
        seeds = range(i * APART, i * APART + max(1, round(count * share)))
        starts = range(seeds.start, seeds.stop, CHUNK)
        chunks = [_chunk(autoencoder, art, start, size, folder, min(CHUNK, seeds.stop - start)) for start in starts]
        scenes = [compose(seed, *size) for seed in seeds]
        leeway = torch.tensor([scene.leeway for scene in scenes])
        buckets.append(Bucket(rows, columns, scenes, torch.cat(chunks), leeway))
        print(f"latents {rows}x{columns}: {len(seeds)}", flush=True)
    return buckets


def _chunk(autoencoder: Autoencoder, art: Art, start: int, size: tuple[int, int], folder: Path, count: int) -> Tensor:
    """Return the latents of `count` scenes from a number on: (count, L, C)."""
    kept = folder / f"latents-{size[0]}x{size[1]}-{start}.pt"
    if kept.exists():
        latents: Tensor = torch.load(kept, weights_only=True)
        if len(latents) >= count:
            return latents[:count]
    latents = torch.cat([encoded(autoencoder, pixels) for pixels in _drawn(art, start, size, count)])
    torch.save(latents, kept)
    return latents


def _drawn(art: Art, start: int, size: tuple[int, int], count: int) -> Iterator[Tensor]:
    parts = [range(first, min(first + PART, start + count)) for first in range(start, start + count, PART)]
    if len(parts) == 1:
        # Not worth the start of a process.
        yield scene_pixels(parts[0], art, *size)
        return
    with ProcessPoolExecutor(PAINTERS, multiprocessing.get_context("spawn")) as painters:
        yield from painters.map(partial(_draw, art.folder, size), parts)


def _draw(folder: Path, size: tuple[int, int], seeds: range) -> Tensor:
    torch.set_num_threads(1)
    return scene_pixels(seeds, Art(folder), *size)


@torch.no_grad()
def encoded(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """Return pixels, 0 to 255, as packed latents: (B, 3, height, width) -> (B, L, C), bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        z = autoencoder.encode(to_signed(pixels).contiguous(memory_format=torch.channels_last))
    return pack(z).bfloat16()
