"""Prompt to conditioning, noise to latents, latents to pixels: each part by itself, on the built-in model."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline, to_pixels
from allaprima.errors import Cancelled, GenerationFailed
from allaprima.flux import no_check
from allaprima.weights.networks import Model

REQUEST = GenerationRequest(prompt="a red apple", seed=5, model=SKETCH_ID, width=256, height=256, steps=2)


class Countdown:
    """A check that stops the pass at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def pipeline(sketch: Model) -> Pipeline:
    return Pipeline(sketch, "cpu")


def test_a_known_and_short_prompt_gives_no_warnings(pipeline: Pipeline, sketch: Model) -> None:
    conditioning = pipeline.encode("a red apple", no_check)

    assert conditioning.warnings == ()
    assert conditioning.embeddings.txt.shape == (1, sketch.config.t5.length, sketch.config.transformer.context_in_dim)
    assert conditioning.embeddings.vec.shape == (1, sketch.config.transformer.vec_in_dim)


def test_unknown_words_and_a_prompt_that_is_too_long_are_both_said(pipeline: Pipeline, sketch: Model) -> None:
    room = sketch.t5_tokenizer.max_tokens

    warnings = pipeline.encode("Qwertz " + "apple " * (room + 1) + "asdfgh", no_check).warnings

    assert warnings == (
        "the model does not know these words: Qwertz, asdfgh",
        f"the prompt is longer than {room} tokens; the rest was not read",
    )


def test_unknown_words_leave_no_trace_in_the_conditioning(pipeline: Pipeline) -> None:
    plain, padded = (pipeline.encode(prompt, no_check) for prompt in ("a red apple", "a qwertz red apple asdfgh"))

    assert torch.equal(plain.embeddings.txt, padded.embeddings.txt)
    assert torch.equal(plain.embeddings.vec, padded.embeddings.vec)


def test_a_prompt_is_read_once_however_it_is_written(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")

    first = pipeline.encode("a red apple", no_check)
    again = pipeline.encode("A RED apple, qwertz", no_check)
    other = pipeline.encode("a red car", no_check)

    assert again.embeddings is first.embeddings
    assert (first.warnings, again.warnings) == ((), ("the model does not know these words: qwertz",))
    assert other.embeddings is not first.embeddings
    assert (pipeline.prompts.hits, pipeline.prompts.misses) == (1, 2)


def test_a_prompt_whose_reading_was_stopped_is_read_anew(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")

    with pytest.raises(Cancelled):
        pipeline.encode("a red apple", Countdown(2))

    pipeline.encode("a red apple", no_check)
    assert (pipeline.prompts.hits, pipeline.prompts.misses) == (0, 2)


def test_the_noise_of_an_image_does_not_depend_on_the_number_of_images_or_steps(pipeline: Pipeline) -> None:
    four = pipeline.prepare(REQUEST.changed(count=4, steps=12))
    third = pipeline.prepare(REQUEST.changed(seed=REQUEST.seed + 2))

    assert torch.equal(four.images[2], third.images[0])
    assert all(image.dtype == torch.float32 for image in four.images)


def test_denoising_yields_after_each_step_and_every_image_has_moved(pipeline: Pipeline) -> None:
    conditioning = pipeline.encode(REQUEST.prompt, no_check)
    canvas = pipeline.prepare(REQUEST.changed(count=2))
    before, steps = list(canvas.images), []

    for progress in pipeline.denoise(canvas, conditioning, 3, no_check):
        steps.append(progress.step)
        assert not any(torch.equal(old, new) for old, new in zip(before, progress.images, strict=True))
        before = list(progress.images)

    assert steps == [1, 2, 3]
    assert all(image.dtype == torch.float32 for image in before)


@pytest.mark.parametrize("size", [(64, 64), (1536, 64), (1440, 512), (256, 256)], ids=str)
def test_decoding_gives_exactly_the_size_asked_for(pipeline: Pipeline, size: tuple[int, int]) -> None:
    width, height = size
    canvas = pipeline.prepare(REQUEST.changed(width=width, height=height, count=2))

    pictures = pipeline.decode(canvas, width, height, no_check)

    assert [(picture.shape, picture.dtype) for picture in pictures] == [((height, width, 3), np.uint8)] * 2


def test_a_model_without_a_canvas_paints_the_size_itself(sketch: Model) -> None:
    whole = Pipeline(replace(sketch, config=replace(sketch.config, canvas_tokens=None)), "cpu")
    token_px = sketch.config.token_px
    request = REQUEST.changed(width=5 * token_px, height=3 * token_px)

    canvas = whole.prepare(request)

    assert (canvas.rows, canvas.columns) == (3, 5)
    assert canvas.images[0].shape[1] == 15
    [picture] = whole.decode(canvas, request.width, request.height, no_check)
    assert picture.shape == (3 * token_px, 5 * token_px, 3)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_reading_and_decoding_stop_at_any_of_their_checks(sketch: Model, calls: int) -> None:
    pipeline = Pipeline(sketch, "cpu")
    canvas = pipeline.prepare(REQUEST)

    with pytest.raises(Cancelled):
        pipeline.encode(REQUEST.prompt, Countdown(calls))
    with pytest.raises(Cancelled):
        pipeline.decode(canvas, 256, 256, Countdown(calls))


def test_denoising_stops_in_the_middle_of_a_step(pipeline: Pipeline, sketch: Model) -> None:
    conditioning, canvas = pipeline.encode(REQUEST.prompt, no_check), pipeline.prepare(REQUEST)
    blocks = sketch.config.transformer.depth + sketch.config.transformer.depth_single_blocks

    with pytest.raises(Cancelled):
        list(pipeline.denoise(canvas, conditioning, 4, Countdown(2 * blocks + 2)))

    assert canvas.step == 1


def test_latents_that_are_not_finite_fail_at_the_step_that_gave_them(sketch: Model) -> None:
    networks = copy.deepcopy(sketch.networks)
    networks.transformer.final_layer.linear.weight[0, 0] = torch.inf
    broken = Pipeline(replace(sketch, networks=networks), "cpu")
    conditioning, canvas = broken.encode(REQUEST.prompt, no_check), broken.prepare(REQUEST)

    with pytest.raises(GenerationFailed, match="not finite at step 1"):
        list(broken.denoise(canvas, conditioning, 2, no_check))


def test_a_picture_that_is_not_finite_fails_instead_of_becoming_pixels(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")
    canvas = pipeline.prepare(REQUEST.changed(count=2))
    canvas.images[1][0, 0, 0] = torch.nan

    with pytest.raises(GenerationFailed, match="not finite"):
        pipeline.decode(canvas, 256, 256, no_check)


def test_pixels_are_clamped_and_rounded_to_the_nearest() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, 1 / 255])

    pixels = to_pixels(values.expand(1, 3, 1, 6))

    assert pixels.shape == (1, 6, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 128]


def test_a_prompt_read_before_is_not_modulated_again_for_the_same_number_of_steps(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")
    for seed, steps in ((1, 2), (2, 2), (3, 3)):
        pipeline.paint(REQUEST.changed(seed=seed, steps=steps))

    assert (pipeline.modulations.hits, pipeline.modulations.misses) == (1, 2)
