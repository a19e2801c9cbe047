"""Cached latents of the drawn scenes to which the flow is fitted. Each scene is rendered and encoded once per encoder.

The cache is written in chunks: an interrupted run continues at its chunk, and a run with more scenes adds chunks. A
scene whose composition or layout has changed is rendered again; changes of the drawing code are not detected. The name
of a chunk's file contains the encoder's fingerprint, so encoders do not share chunks.

Dimension key: L image tokens, C latent values per token.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allaprima.flux import SKETCH, Autoencoder
from training.data.latents import device_of, encode_pixels, fingerprint
from training.data.rendering import SceneRenderer, canvas_px
from training.data.scenes import SIZES, Scene, Subject, compose, place_objects
from training.data.storage import write_atomically

#: Number of scenes in a chunk.
CHUNK_SCENES = 512
#: Distance between the first seeds of two canvases. It exceeds the number of scenes of a canvas.
SEED_STRIDE = 1_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """The scenes of one canvas, with their latents."""

    rows: int
    columns: int
    scenes: list[Scene]
    #: (number of scenes, L, C), bfloat16.
    latents: Tensor
    #: (number of scenes, FREE_FACTORS), float32.
    free_factors: Tensor


def build_buckets(autoencoder: Autoencoder, renderer: SceneRenderer, count: int, folder: Path) -> list[Bucket]:
    """Return one bucket per canvas of `SIZES`, with about `count` scenes in all, on the autoencoder's device.

    folder: the folder of the cache.
    """
    buckets = []
    device, encoder = device_of(autoencoder), fingerprint(autoencoder.encoder)
    for i, ((width, height), share) in enumerate(SIZES.items()):
        size = canvas_px(width, height)
        columns, rows = (side // SKETCH.token_px for side in size)
        seeds = range(i * SEED_STRIDE, i * SEED_STRIDE + max(1, round(count * share)))
        scenes = [compose(seed, *size) for seed in seeds]
        chunks = []
        for first in range(0, len(seeds), CHUNK_SCENES):
            path = folder / f"latents-{encoder}-{size[0]}x{size[1]}-{seeds[first]}.pt"
            part = slice(first, first + CHUNK_SCENES)
            chunks.append(_chunk_latents(autoencoder, renderer, seeds[part], scenes[part], path))
        free_factors = torch.tensor([scene.free_factors for scene in scenes], device=device)
        buckets.append(Bucket(rows, columns, scenes, torch.cat(chunks).to(device), free_factors))
        print(f"latents {rows}x{columns}: {len(seeds)}", flush=True)
    return buckets


def _chunk_latents(
    autoencoder: Autoencoder, renderer: SceneRenderer, seeds: range, scenes: list[Scene], path: Path
) -> Tensor:
    """Return the latents of at most `CHUNK_SCENES` scenes of one canvas: (len(seeds), L, C), bfloat16.

    Scenes that are not in the chunk's file are rendered and encoded, and the file is replaced.
    """
    keys = [scene_key(scene) for scene in scenes]
    latents = dict(zip(*torch.load(path, weights_only=True), strict=True)) if path.exists() else {}
    missing = [i for i, key in enumerate(keys) if key not in latents]
    if missing:
        device, size = device_of(autoencoder), (scenes[0].width, scenes[0].height)
        rendered = renderer.render_chunks([seeds[i] for i in missing], *size)
        encoded = torch.cat([encode_pixels(autoencoder, pixels.to(device)).cpu() for pixels in rendered])
        latents |= dict(zip((keys[i] for i in missing), encoded, strict=True))
    chunk = torch.stack([latents[key] for key in keys])
    if missing:
        write_atomically((keys, chunk), path)
    return chunk


def scene_key(scene: Scene) -> str:
    """Return 16 hex digits of a hash of a scene and its layout.

    The hashed text is part of the cache's file format, so the names in it must not change with those in the code.
    """
    subjects = [_subject_text(subject) for subject in scene.subjects]
    # The text is Python's representation of a tuple, which has a trailing comma for one element.
    subjects_text = ", ".join(subjects) + ("," if len(subjects) == 1 else "")
    scene_text = (
        f"Scene(background={scene.background!r}, subjects=({subjects_text}), relation={scene.relation!r}, "
        f"width={scene.width}, height={scene.height}, leeway={scene.free_factors!r})"
    )
    objects = ", ".join(
        f"Placed(subject={_subject_text(placed.subject)}, "
        f"box=Box(row={placed.box.row}, column={placed.box.column}, cells={placed.box.cells}))"
        for placed in place_objects(scene)
    )
    return hashlib.sha256(f"({scene_text}, [{objects}])".encode()).hexdigest()[:16]


def _subject_text(subject: Subject) -> str:
    return (
        f"Subject(icon={subject.icon!r}, count={subject.count}, dye={subject.variant!r}, size={subject.size!r}, "
        f"accessory={subject.accessory!r})"
    )
