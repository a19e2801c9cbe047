"""Previews: generated for every step that a client follows, scored and withheld like the images."""

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
from allaprima.engine.init_latents import LatentState
from allaprima.engine.pipeline import Pipeline, to_pixels
from allaprima.engine.previews import MAX_SIDE_PX, Previewer
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.flux.latents import pack, unpack
from allaprima.weights.networks import Model

REQUEST = GenerationRequest(
    prompt="a red apple, blue background", seed=5, model=SKETCH_ID, width=512, height=384, steps=4, count=2
)
SHORT = REQUEST.changed(steps=1)


class Watcher(StepCallback):
    """Records a preview of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Preview] = []

    def wants_previews(self) -> bool:
        return True

    def preview(self, preview: Preview) -> None:
        self.seen.append(preview)


def pixels(data: bytes, size: tuple[int, int] = (64, 48)) -> NDArray[np.float32]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size), dtype=np.float32)


def test_previews_approach_final_image(generator: Generator) -> None:
    watcher = Watcher()
    result = generator.generate(REQUEST, never_cancelled, watcher)
    assert [(preview.step, preview.steps, len(preview.images)) for preview in watcher.seen] == [
        (step, 4, 2) for step in (1, 2, 3, 4)
    ]
    for position, image in enumerate(result.images):
        final = pixels(image.data)
        errors = [np.abs(pixels(preview.images[position].data) - final).mean() for preview in watcher.seen]
        assert errors[-1] < 6
        assert errors[-1] < errors[0]


def test_previews_are_small_and_keep_aspect_ratio(generator: Generator) -> None:
    watcher = Watcher()
    generator.generate(SHORT.changed(width=1024, height=512, count=1), never_cancelled, watcher)
    opened = Image.open(io.BytesIO(watcher.seen[0].images[0].data))
    assert opened.format == "JPEG"
    assert max(opened.size) <= MAX_SIDE_PX
    assert opened.size[0] / opened.size[1] == pytest.approx(2, rel=0.1)
    assert len(watcher.seen[0].images[0].data) < 40_000


def test_previews_do_not_change_image(generator: Generator) -> None:
    request = REQUEST.changed(steps=2)
    unwatched = generator.generate(request, never_cancelled, StepCallback())
    watched = generator.generate(request, never_cancelled, Watcher())
    assert [image.data for image in watched.images] == [image.data for image in unwatched.images]


def test_flagged_previews_are_withheld(sketch: Model, safety: SafetyChecker) -> None:
    watcher = Watcher()
    result = Generator(Pipeline(sketch, "cpu"), safety, 0.0).generate(SHORT, never_cancelled, watcher)
    assert all(image.is_flagged for image in result.images)
    for preview in watcher.seen:
        assert [(image.data, image.is_flagged) for image in preview.images] == [(b"", True)] * 2
        assert all(image.nsfw_score is not None for image in preview.images)


def test_unchecked_previews_have_no_scores(generator: Generator) -> None:
    watcher = Watcher()
    generator.generate(SHORT.changed(check_safety=False), never_cancelled, watcher)
    assert [image.nsfw_score for image in watcher.seen[0].images] == [None, None]


@torch.inference_mode()
def test_linear_projection_approximates_decoded_colours(sketch: Model) -> None:
    """The latents are the built-in model's: its decoder is cheap to compare with."""
    pipeline = Pipeline(sketch, "cpu")
    request = REQUEST.changed(prompt="a cat on a beach", count=1)
    state = pipeline.init_latents(request)
    for _ in pipeline.denoise(state, pipeline.encode(request.prompt, never_cancelled), 4, never_cancelled):
        continue
    previewer = Previewer(pipeline)
    z = _latents(state, sketch)
    colours = to_pixels(previewer._project(z, never_cancelled)).astype(np.float32)
    decoded = to_pixels(previewer._decode(z, never_cancelled))
    shrunk = np.asarray(Image.fromarray(decoded).resize(colours.shape[1::-1], Image.Resampling.BOX), dtype=np.float32)
    error = np.abs(colours - shrunk).mean()
    assert error < 0.6 * np.abs(shrunk - shrunk.mean(axis=(0, 1))).mean()
    # The projection is fitted once.
    fitted = previewer._projection
    previewer._project(z, never_cancelled)
    assert previewer._projection is fitted


def _latents(state: LatentState, model: Model) -> torch.Tensor:
    z = unpack(state.latents[0], state.rows, state.columns)
    assert torch.equal(pack(z), state.latents[0])
    assert z.shape[1] == model.config.autoencoder.z_channels
    return z
