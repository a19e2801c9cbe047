"""Generates the image files of one request and measures each phase: text, steps, decode, safety, encode."""

import time

import numpy as np
import torch

from allaprima.domain.generation import GeneratedImage, GenerationRequest, GenerationResult, Timings
from allaprima.domain.progress import Preview, PreviewImage, Progress, StepDone
from allaprima.engine.encode import ImageMetadata, encode
from allaprima.engine.init_latents import LatentState
from allaprima.engine.pipeline import Pipeline, Pixels
from allaprima.engine.previews import Previewer, encode_preview
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import CancelCheck


class Stopwatch:
    """Measures consecutive intervals."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the previous call, or since construction for the first call."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


class Generator:
    """Generates requests with one model, runs the safety checker on the images, and encodes them as files."""

    def __init__(self, pipeline: Pipeline, safety: SafetyChecker, threshold: float) -> None:
        """threshold: the safety score, 0 to 1, from which an image is withheld; a request can override it."""
        self.model = pipeline.model
        self._pipeline = pipeline
        self._safety = safety
        self._threshold = threshold
        self._previewer = Previewer(pipeline)

    @torch.inference_mode()
    def generate(self, request: GenerationRequest, check: CancelCheck, progress: Progress) -> GenerationResult:
        """Return the finished images. `check` is called before every block of a network and may raise to stop.

        The timings exclude previews, which are rendered only while a client watches the job.

        Raises `GenerationFailed` when a network's output is not finite, and any exception of `check`.
        """
        watch = Stopwatch()
        conditioning = self._pipeline.encode(request.prompt, check)
        text_s = watch.lap()
        state = self._pipeline.init_latents(request)
        steps_s = []
        for _ in self._pipeline.denoise(state, conditioning, request.steps, check):
            steps_s.append(watch.lap())
            progress.step(StepDone(state.step, request.steps))
            if progress.wants_previews():
                progress.preview(self._preview(request, state, check))
                watch.lap()
        decoded = self._pipeline.decode(state, request.width, request.height, check)
        decode_s = watch.lap()
        scores = [self._score(request, pixels) for pixels in decoded]
        safety_s = watch.lap()
        images = tuple(
            self._finish(request, i, pixels, score)
            for i, (pixels, score) in enumerate(zip(decoded, scores, strict=True))
        )
        timings = Timings(text=text_s, steps=tuple(steps_s), decode=decode_s, safety=safety_s, encode=watch.lap())
        return GenerationResult(
            self.model.id, self.model.revision, self.model.precision, images, timings, conditioning.warnings
        )

    def _preview(self, request: GenerationRequest, state: LatentState, check: CancelCheck) -> Preview:
        """Return previews of the current latents. Each is scored, and withheld if flagged, like a finished image."""
        images = []
        for pixels in self._previewer.render(state, check):
            score = self._score(request, pixels)
            is_flagged = self._is_flagged(request, score)
            images.append(PreviewImage(b"" if is_flagged else encode_preview(pixels), score, is_flagged))
        return Preview(state.step, request.steps, tuple(images))

    def _score(self, request: GenerationRequest, pixels: Pixels) -> float | None:
        return self._safety.score(torch.from_numpy(pixels)) if request.check_safety else None

    def _is_flagged(self, request: GenerationRequest, score: float | None) -> bool:
        threshold = self._threshold if request.safety_threshold is None else request.safety_threshold
        return score is not None and score >= threshold

    def _finish(self, request: GenerationRequest, index: int, pixels: Pixels, score: float | None) -> GeneratedImage:
        is_flagged = self._is_flagged(request, score)
        metadata = ImageMetadata(request.metadata(index), self.model.revision, self.model.precision)
        visible = np.zeros_like(pixels) if is_flagged else pixels
        file = encode(visible, metadata, request.image_format)
        return GeneratedImage(file, request.seed + index, score, is_flagged)
