"""Generates the pixels of one request: encode the prompt, sample the initial latents, denoise, decode.

Every image is computed in a batch of one. The order and the shapes of the computation depend on its request alone, so
the bits of an image do not depend on other requests. Latents and Euler steps are float32 in every precision.

Dimension key: L image tokens, T text tokens, C latent values per token, Y rows and X columns of pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from allaprima.domain.generation import GenerationRequest
from allaprima.engine.init_latents import LatentState, init_latents
from allaprima.engine.prompt_cache import ByteCache
from allaprima.errors import GenerationFailed
from allaprima.flux import CancelCheck, Modulations, never_cancelled
from allaprima.flux.latents import image_ids, text_ids, unpack
from allaprima.flux.sampler import euler_step, schedule, velocity_to
from allaprima.weights.networks import Model

#: An image: (height, width, 3), RGB, 0 to 255.
Pixels = NDArray[np.uint8]
#: The token ids of T5 and of CLIP, which are the model's whole input from a prompt.
PromptKey = tuple[tuple[int, ...], tuple[int, ...]]

#: Size of the prompt embedding cache: 30 prompts of FLUX, or about 4,000 of the built-in model.
PROMPT_CACHE_BYTES = 64 * 2**20
#: Size of the modulation cache: 15 prompts of FLUX at four steps.
MODULATION_CACHE_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A prompt's embeddings, the inputs of the transformer."""

    #: T5's output: (1, T, context_in_dim).
    txt: Tensor
    #: CLIP's pooled output: (1, vec_in_dim).
    vec: Tensor

    @property
    def nbytes(self) -> int:
        """Size of both in bytes."""
        return self.txt.nbytes + self.vec.nbytes


@dataclass(frozen=True, slots=True)
class Conditioning:
    """An encoded prompt."""

    key: PromptKey
    embeddings: Embeddings
    #: Sentences for the client: what the model reads as something else, what it leaves out, truncation.
    warnings: tuple[str, ...]


class Pipeline:
    """Generates images with one loaded model. Its only state between requests is two caches, which change no pixel."""

    def __init__(self, model: Model, device: str) -> None:
        self.model = model
        # Each pipeline has its own caches, so the keys need neither the model's revision nor its precision.
        self._embeddings: ByteCache[PromptKey, Embeddings] = ByteCache(PROMPT_CACHE_BYTES)
        self._modulations: ByteCache[tuple[PromptKey, int], Modulations] = ByteCache(MODULATION_CACHE_BYTES)
        self._device = torch.device(device)

    @torch.inference_mode()
    def generate(self, request: GenerationRequest) -> list[Pixels]:
        """Return a request's images. `Generator` adds progress, timings, previews and the safety checker."""
        state = self.init_latents(request)
        for _ in self.denoise(state, self.encode(request.prompt, never_cancelled), request.steps, never_cancelled):
            continue
        return self.decode(state, request.width, request.height, never_cancelled)

    def encode(self, prompt: str, check: CancelCheck) -> Conditioning:
        """Return the prompt's embeddings from both text encoders, or from the cache."""
        text = self.model.prompt_input.text(prompt)
        key = self.model.t5_tokenizer.encode(text).ids, self.model.clip_tokenizer.encode(text).ids
        embeddings = self._embeddings.get(key)
        if embeddings is None:
            embeddings = self._embed(*key, check)
            self._embeddings.put(key, embeddings)
        return Conditioning(key, embeddings, self.model.prompt_input.warnings(prompt))

    def _embed(self, t5_ids: tuple[int, ...], clip_ids: tuple[int, ...], check: CancelCheck) -> Embeddings:
        networks = self.model.networks
        return Embeddings(
            networks.t5(torch.tensor([t5_ids], device=self._device), check),
            networks.clip(torch.tensor([clip_ids], device=self._device), check),
        )

    def init_latents(self, request: GenerationRequest) -> LatentState:
        """Return the initial latents of a request; see `engine.init_latents`."""
        return init_latents(request, self.model.config, self._device)

    def denoise(
        self, state: LatentState, conditioning: Conditioning, steps: int, check: CancelCheck
    ) -> Iterator[LatentState]:
        """Denoise the latents in place with Euler steps, yielding the state after each step.

        Raises `GenerationFailed` when the latents after a step are not finite.
        """
        ids = image_ids(state.rows, state.columns).to(self._device)
        txt = conditioning.embeddings.txt
        txt_ids = text_ids(txt.shape[1]).to(self._device)
        modulations = self.modulate(conditioning, steps, check)
        for step, (t, t_next) in enumerate(pairwise(schedule(steps))):
            state.x0_pred = []
            for i, img in enumerate(state.latents):
                output = self.model.networks.transformer.velocity(
                    img, ids, txt, txt_ids, modulations.row(step), check
                )  # (1, L, C)
                velocity = output if self.model.config.predicts == "velocity" else velocity_to(output, img, t)
                state.latents[i] = euler_step(img, velocity, t, t_next)
                state.x0_pred.append(euler_step(img, velocity, t, 0.0))
                if not torch.isfinite(state.latents[i]).all():
                    raise GenerationFailed(f"the model's output is not finite at step {state.step + 1}")
            state.step += 1
            yield state

    def modulate(self, conditioning: Conditioning, steps: int, check: CancelCheck) -> Modulations:
        """Return the transformer's modulations, one row per step, from the network or from the cache."""
        key = conditioning.key, steps
        modulations = self._modulations.get(key)
        if modulations is None:
            times = torch.tensor(schedule(steps)[:-1], device=self._device)
            modulations = self.model.networks.transformer.modulations(times, conditioning.embeddings.vec, check)
            self._modulations.put(key, modulations)
        return modulations

    def decode(self, state: LatentState, width: int, height: int, check: CancelCheck) -> list[Pixels]:
        """Decode the latents to images, resized to width x height pixels if the token grid has another size.

        Raises `GenerationFailed` when the autoencoder's output is not finite.
        """
        images = []
        for img in state.latents:
            z = unpack(img, state.rows, state.columns)
            dtype = self.model.networks.autoencoder.decoder.conv_in.weight.dtype
            decoded = self.model.networks.autoencoder.decode(z.to(dtype), check)
            if not torch.isfinite(decoded).all():
                raise GenerationFailed("the autoencoder's output is not finite")
            pixels = to_pixels(decoded)
            if pixels.shape[:2] != (height, width):
                resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
                pixels = np.array(resized)
            images.append(pixels)
        return images


def to_pixels(image: Tensor) -> Pixels:
    """Convert an image (1, 3, Y, X) to (Y, X, 3) uint8: [-1, 1] maps to 0 to 255, clamped and rounded.

    Source: huggingface/diffusers `VaeImageProcessor`.
    """
    scaled = ((image[0].float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = scaled.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
