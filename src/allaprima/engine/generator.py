"""One request to finished files, with every phase timed: text, steps, decode, safety, encode."""

import time

import numpy as np
import torch

from allaprima.domain.generation import GeneratedImage, GenerationRequest, GenerationResult, Timings
from allaprima.domain.progress import Preview, PreviewImage, Progress, StepDone
from allaprima.engine.encode import PaintingInfo, encode
from allaprima.engine.pipeline import Canvas, Pipeline, Pixels
from allaprima.engine.previews import Previewer, encode_preview
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import CancelCheck


class Stopwatch:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call, or since the start."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


class Generator:
    """Paints requests with one model, looks at what it painted, and encodes it."""

    def __init__(self, pipeline: Pipeline, safety: SafetyChecker, threshold: float) -> None:
        """threshold: the score from 0 to 1 from which a picture is withheld."""
        self.model = pipeline.model
        self._pipeline = pipeline
        self._safety = safety
        self._threshold = threshold
        self._previewer = Previewer(pipeline)

    @torch.inference_mode()
    def paint(self, request: GenerationRequest, check: CancelCheck, progress: Progress) -> GenerationResult:
        """Return the finished painting. `check` is asked before every block and may raise to stop it.

        The seconds that previews take belong to no phase: they are a watcher's, not the request's.

        Raises `GenerationFailed` when the model gives values that are not finite, and whatever `check` raises.
        """
        watch = Stopwatch()
        conditioning = self._pipeline.encode(request.prompt, check)
        text_s = watch.lap()
        canvas = self._pipeline.prepare(request)
        steps_s = []
        for _ in self._pipeline.denoise(canvas, conditioning, request.steps, check):
            steps_s.append(watch.lap())
            progress.step(StepDone(canvas.step, request.steps))
            if progress.wants_previews():
                progress.preview(self._preview(request, canvas, check))
                watch.lap()
        pictures = self._pipeline.decode(canvas, request.width, request.height, check)
        decode_s = watch.lap()
        scores = [self._score(picture) if request.check_safety else None for picture in pictures]
        safety_s = watch.lap()
        images = tuple(
            self._finish(request, i, picture, score)
            for i, (picture, score) in enumerate(zip(pictures, scores, strict=True))
        )
        timings = Timings(text=text_s, steps=tuple(steps_s), decode=decode_s, safety=safety_s, encode=watch.lap())
        return GenerationResult(
            self.model.id, self.model.revision, self.model.precision, images, timings, conditioning.warnings
        )

    def _preview(self, request: GenerationRequest, canvas: Canvas, check: CancelCheck) -> Preview:
        """Return how the canvas looks now; what would be withheld at the end is withheld here too."""
        images = []
        for picture in self._previewer.pictures(canvas, check):
            score = self._score(picture) if request.check_safety else None
            is_flagged = score is not None and score >= self._threshold_of(request)
            data = b"" if is_flagged else encode_preview(picture)
            images.append(PreviewImage(data, score, is_flagged))
        return Preview(canvas.step, request.steps, tuple(images))

    def _threshold_of(self, request: GenerationRequest) -> float:
        return self._threshold if request.safety_threshold is None else request.safety_threshold

    def _score(self, picture: Pixels) -> float:
        return self._safety.score(torch.from_numpy(picture))

    def _finish(self, request: GenerationRequest, index: int, picture: Pixels, score: float | None) -> GeneratedImage:
        is_flagged = score is not None and score >= self._threshold_of(request)
        info = PaintingInfo(
            prompt=request.prompt,
            seed=request.seed + index,
            steps=request.steps,
            width=request.width,
            height=request.height,
            model=self.model.id,
            revision=self.model.revision,
            precision=self.model.precision.value,
        )
        shown = np.zeros_like(picture) if is_flagged else picture
        return GeneratedImage(encode(shown, info, request.image_format), info.seed, score, is_flagged)
