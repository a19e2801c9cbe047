"""One request to pixels with one model: read the prompt, denoise step by step, decode.

Every image is painted by itself (a batch of one), in an order and with shapes that depend on nothing but the request:
so its bits can't depend on what else is being painted. Its latents and the Euler steps are float32 whatever the
weights are.

Dimension key: L image tokens, T text tokens, C latent values per token.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.engine.prompt_cache import ByteCache
from allaprima.errors import GenerationFailed
from allaprima.flux import Check, Modulations, no_check
from allaprima.flux.latents import image_ids, noise, pack, text_ids, token_grid, unpack
from allaprima.flux.sampler import euler_step, schedule, velocity_to
from allaprima.weights.networks import Model

Pixels = NDArray[np.uint8]
#: The token ids of T5 and of CLIP: prompts that give the same are the same to the model.
PromptKey = tuple[tuple[int, ...], tuple[int, ...]]

#: Bytes of read prompts that a pipeline keeps: 30 of FLUX's, all that anyone asks of the built-in model.
PROMPT_CACHE_BYTES = 64 * 2**20
#: Bytes of modulations that it keeps: those of 15 prompts at FLUX's four steps.
MODULATION_CACHE_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A prompt as the transformer reads it."""

    #: (1, T, context_in_dim)
    txt: Tensor
    #: (1, vec_in_dim)
    vec: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.txt.nbytes + self.vec.nbytes


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A prompt, read."""

    #: What it was read from.
    key: PromptKey
    embeddings: Embeddings
    #: What the client should know about how the prompt was read, a sentence each.
    warnings: tuple[str, ...]


@dataclass(slots=True)
class Canvas:
    """The latents of one request between two steps."""

    rows: int
    columns: int
    #: One (1, L, C) per image, float32.
    images: list[Tensor]
    #: Steps done so far.
    step: int = 0
    #: What the last step took each image for: where it would go in one straight line from there.
    guesses: list[Tensor] = field(default_factory=list)


class Pipeline:
    """Paints requests with one loaded model. Between two calls it holds nothing but what it read last, which changes no
    pixel.
    """

    def __init__(self, model: Model, device: str) -> None:
        self.model = model
        #: The model's alone, so that its revision and precision need not be part of a prompt's key.
        self.prompts: ByteCache[PromptKey, Embeddings] = ByteCache(PROMPT_CACHE_BYTES)
        #: By prompt and number of steps.
        self.modulations: ByteCache[tuple[PromptKey, int], Modulations] = ByteCache(MODULATION_CACHE_BYTES)
        self._device = torch.device(device)

    @torch.inference_mode()
    def paint(self, request: GenerationRequest) -> list[Pixels]:
        """Return a request's pictures, for those who want neither progress nor timings: `Painter` has both."""
        canvas = self.prepare(request)
        for _ in self.denoise(canvas, self.encode(request.prompt, no_check), request.steps, no_check):
            continue
        return self.decode(canvas, request.width, request.height, no_check)

    def encode(self, prompt: str, check: Check) -> Conditioning:
        """Read a prompt with both text encoders, or remember what they made of it."""
        t5_tokens = self.model.t5_tokenizer.encode(prompt)
        clip_tokens = self.model.clip_tokenizer.encode(prompt)
        warnings = []
        if t5_tokens.unknown_words:
            warnings.append(f"the model does not know these words: {', '.join(t5_tokens.unknown_words)}")
        if t5_tokens.over:
            room = self.model.t5_tokenizer.max_tokens
            warnings.append(f"the prompt is longer than {room} tokens; the rest was not read")
        key = t5_tokens.ids, clip_tokens.ids
        embeddings = self.prompts.get(key)
        if embeddings is None:
            embeddings = self._read(*key, check)
            self.prompts.put(key, embeddings)
        return Conditioning(key, embeddings, tuple(warnings))

    def _read(self, t5_ids: tuple[int, ...], clip_ids: tuple[int, ...], check: Check) -> Embeddings:
        networks = self.model.networks
        return Embeddings(
            networks.t5(torch.tensor([t5_ids], device=self._device), check),
            networks.clip(torch.tensor([clip_ids], device=self._device), check),
        )

    def prepare(self, request: GenerationRequest) -> Canvas:
        """Return the canvas of a request: pure noise, image i from seed + i."""
        config = self.model.config
        rows, columns = token_grid(request.width, request.height, config.token_px, config.canvas_tokens)
        channels = config.autoencoder.z_channels
        images = [
            pack(noise(request.seed + i, channels, rows, columns)[None]).to(self._device) for i in range(request.count)
        ]
        return Canvas(rows, columns, images)

    def denoise(self, canvas: Canvas, conditioning: Conditioning, steps: int, check: Check) -> Iterator[Canvas]:
        """Move the canvas from noise to image, yielding it after each step.

        Raises `GenerationFailed` when a step gives values that are not finite.
        """
        ids = image_ids(canvas.rows, canvas.columns).to(self._device)
        txt = conditioning.embeddings.txt
        txt_ids = text_ids(txt.shape[1]).to(self._device)
        modulations = self._modulate(conditioning, steps, check)
        for step, (t, t_next) in enumerate(pairwise(schedule(steps))):
            canvas.guesses = []
            for i, image in enumerate(canvas.images):
                output = self.model.networks.transformer.velocity(
                    image, ids, txt, txt_ids, modulations.row(step), check
                )  # (1, L, C)
                velocity = output if self.model.config.predicts == "velocity" else velocity_to(output, image, t)
                canvas.images[i] = euler_step(image, velocity, t, t_next)
                canvas.guesses.append(euler_step(image, velocity, t, 0.0))
                if not torch.isfinite(canvas.images[i]).all():
                    raise GenerationFailed(f"the model gave values that are not finite at step {canvas.step + 1}")
            canvas.step += 1
            yield canvas

    def _modulate(self, conditioning: Conditioning, steps: int, check: Check) -> Modulations:
        """Return the modulations of all steps, a row each."""
        key = conditioning.key, steps
        modulations = self.modulations.get(key)
        if modulations is None:
            times = torch.tensor(schedule(steps)[:-1], device=self._device)
            modulations = self.model.networks.transformer.modulations(times, conditioning.embeddings.vec, check)
            self.modulations.put(key, modulations)
        return modulations

    def decode(self, canvas: Canvas, width: int, height: int, check: Check) -> list[Pixels]:
        """Return the pictures of a finished canvas: (height, width, 3), uint8, one per image.

        Raises `GenerationFailed` when the autoencoder gives values that are not finite.
        """
        pictures = []
        for image in canvas.images:
            z = unpack(image, canvas.rows, canvas.columns)
            dtype = self.model.networks.autoencoder.decoder.conv_in.weight.dtype
            picture = self.model.networks.autoencoder.decode(z.to(dtype), check)
            if not torch.isfinite(picture).all():
                raise GenerationFailed("the model gave values that are not finite in the finished picture")
            pixels = to_pixels(picture)
            if pixels.shape[:2] != (height, width):
                resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
                pixels = np.array(resized)
            pictures.append(pixels)
        return pictures


def to_pixels(picture: Tensor) -> Pixels:
    """(1, 3, Y, X), about [-1, 1] -> (Y, X, 3), uint8, rounded. Source: diffusers `VaeImageProcessor`."""
    scaled = ((picture[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = scaled.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
