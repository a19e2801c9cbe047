"""Previews: of every step that is watched, ever more like the picture, scored as it is, and without a trace in it."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.domain.progress import Preview, StepCallback
from allaprima.engine.generator import Generator
from allaprima.engine.pipeline import Canvas, Pipeline, to_pixels
from allaprima.engine.previews import MAX_SIDE_PX, Previewer
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.flux.latents import pack
from allaprima.weights.networks import Model

REQUEST = GenerationRequest(
    prompt="a red apple, blue background", seed=5, model=SKETCH_ID, width=512, height=384, steps=4, count=2
)


class Watcher(StepCallback):
    """Somebody who wants to see every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Preview] = []

    def wants_previews(self) -> bool:
        return True

    def preview(self, preview: Preview) -> None:
        self.seen.append(preview)


def pixels(data: bytes, size: tuple[int, int] = (64, 48)) -> NDArray[np.float32]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size), dtype=np.float32)


def test_every_step_has_its_preview_and_they_come_nearer_to_the_picture(painter: Generator) -> None:
    watcher = Watcher()
    painting = painter.paint(REQUEST, never_cancelled, watcher)
    assert [(preview.step, preview.steps, len(preview.images)) for preview in watcher.seen] == [
        (step, 4, 2) for step in (1, 2, 3, 4)
    ]
    for place, image in enumerate(painting.images):
        final = pixels(image.data)
        errors = [np.abs(pixels(preview.images[place].data) - final).mean() for preview in watcher.seen]
        assert errors[-1] < 6
        assert errors[-1] < errors[0]


def test_previews_are_small_files_of_the_right_ratio(painter: Generator) -> None:
    watcher = Watcher()
    painter.paint(REQUEST.changed(width=1024, height=512, count=1), never_cancelled, watcher)
    picture = Image.open(io.BytesIO(watcher.seen[0].images[0].data))
    assert picture.format == "JPEG"
    assert max(picture.size) <= MAX_SIDE_PX
    assert picture.size[0] / picture.size[1] == pytest.approx(2, rel=0.1)
    assert len(watcher.seen[0].images[0].data) < 40_000


def test_being_watched_changes_no_byte_of_the_picture(painter: Generator) -> None:
    unseen = painter.paint(REQUEST, never_cancelled, StepCallback())
    seen = painter.paint(REQUEST, never_cancelled, Watcher())
    assert [image.data for image in seen.images] == [image.data for image in unseen.images]


def test_what_the_checker_withholds_is_not_shown_before_the_end_either(sketch: Model, safety: SafetyChecker) -> None:
    watcher = Watcher()
    painting = Generator(Pipeline(sketch, "cpu"), safety, 0.0).paint(REQUEST, never_cancelled, watcher)
    assert all(image.is_flagged for image in painting.images)
    for preview in watcher.seen:
        assert [(image.data, image.is_flagged) for image in preview.images] == [(b"", True)] * 2
        assert all(image.nsfw_score is not None for image in preview.images)


def test_a_request_without_the_checker_has_previews_without_scores(painter: Generator) -> None:
    watcher = Watcher()
    painter.paint(REQUEST.changed(check_safety=False), never_cancelled, watcher)
    assert [image.nsfw_score for image in watcher.seen[0].images] == [None, None]


@torch.inference_mode()
def test_the_linear_map_shows_the_decoders_colours(sketch: Model) -> None:
    """On the built-in model's own latents, for which the decoder's picture is there to compare with."""
    pipeline = Pipeline(sketch, "cpu")
    request = REQUEST.changed(prompt="a cat on a beach", count=1)
    canvas = pipeline.prepare(request)
    for _ in pipeline.denoise(canvas, pipeline.encode(request.prompt, never_cancelled), 4, never_cancelled):
        continue
    previewer = Previewer(pipeline)
    z = _latents(canvas, sketch)
    colours = to_pixels(previewer._project(z, never_cancelled)).astype(np.float32)
    decoded = to_pixels(previewer._decode(z, never_cancelled))
    shrunk = np.asarray(Image.fromarray(decoded).resize(colours.shape[1::-1], Image.Resampling.BOX), dtype=np.float32)
    error = np.abs(colours - shrunk).mean()
    assert error < 0.6 * np.abs(shrunk - shrunk.mean(axis=(0, 1))).mean()
    # The map is made once.
    made = previewer._map
    previewer._project(z, never_cancelled)
    assert previewer._map is made


def _latents(canvas: Canvas, model: Model) -> torch.Tensor:
    from allaprima.flux.latents import unpack

    z = unpack(canvas.images[0], canvas.rows, canvas.columns)
    assert torch.equal(pack(z), canvas.images[0])
    assert z.shape[1] == model.config.autoencoder.z_channels
    return z
