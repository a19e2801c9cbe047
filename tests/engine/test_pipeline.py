"""The stages of the pipeline with the built-in model: prompt encoding, denoising and decoding."""

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
from allaprima.flux import never_cancelled
from allaprima.weights.networks import Model

REQUEST = GenerationRequest(prompt="a red apple", seed=5, model=SKETCH_ID, width=256, height=256, steps=2)


class Countdown:
    """A check that raises `Cancelled` at its n-th call."""

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


def test_known_words_give_no_warnings(pipeline: Pipeline, sketch: Model) -> None:
    conditioning = pipeline.encode("a red apple", never_cancelled)

    assert conditioning.warnings == ()
    assert conditioning.embeddings.txt.shape == (1, sketch.config.t5.length, sketch.config.transformer.context_in_dim)
    assert conditioning.embeddings.vec.shape == (1, sketch.config.transformer.vec_in_dim)


def test_unknown_words_are_reported_as_written(pipeline: Pipeline) -> None:
    warnings = pipeline.encode("Qwertz apple asdfgh", never_cancelled).warnings

    assert warnings == ("the model does not know these words: Qwertz, asdfgh",)


def test_truncation_is_reported(pipeline: Pipeline, sketch: Model) -> None:
    room = sketch.t5_tokenizer.max_tokens

    warnings = pipeline.encode("an apple " + "relaxing " * room, never_cancelled).warnings

    assert warnings == (f"the prompt is longer than {room} tokens; the rest was not read",)


def test_unknown_words_do_not_change_embeddings(pipeline: Pipeline) -> None:
    plain, padded = (
        pipeline.encode(prompt, never_cancelled) for prompt in ("a red apple", "a qwertz red apple asdfgh")
    )

    assert torch.equal(plain.embeddings.txt, padded.embeddings.txt)
    assert torch.equal(plain.embeddings.vec, padded.embeddings.vec)


def test_prompt_is_encoded_as_its_caption(pipeline: Pipeline) -> None:
    caption, prompt = (
        pipeline.encode(text, never_cancelled) for text in ("a house in a forest", "a cozy cabin in a forest")
    )

    assert prompt.key == caption.key
    assert prompt.warnings[0] == "cabin: read as house"


def test_prompts_of_same_tokens_are_encoded_once(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")

    first = pipeline.encode("a red apple", never_cancelled)
    again = pipeline.encode("A RED apple, qwertz", never_cancelled)
    other = pipeline.encode("a red car", never_cancelled)

    assert again.embeddings is first.embeddings
    assert (first.warnings, again.warnings) == ((), ("the model does not know these words: qwertz",))
    assert other.embeddings is not first.embeddings


def test_cancelled_encoding_is_not_cached(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")

    with pytest.raises(Cancelled):
        pipeline.encode("a red apple", Countdown(2))

    found = pipeline.encode("a red apple", never_cancelled).embeddings
    expected = Pipeline(sketch, "cpu").encode("a red apple", never_cancelled).embeddings
    assert torch.equal(found.txt, expected.txt)
    assert torch.equal(found.vec, expected.vec)


def test_initial_latents_depend_on_seed_and_size_only(pipeline: Pipeline) -> None:
    four = pipeline.init_latents(REQUEST.changed(count=4, steps=12))
    third = pipeline.init_latents(REQUEST.changed(seed=REQUEST.seed + 2))

    assert torch.equal(four.latents[2], third.latents[0])
    assert all(latents.dtype == torch.float32 for latents in four.latents)


def test_denoising_yields_after_each_step(pipeline: Pipeline) -> None:
    conditioning = pipeline.encode(REQUEST.prompt, never_cancelled)
    state = pipeline.init_latents(REQUEST.changed(count=2))
    before, steps = list(state.latents), []

    for progress in pipeline.denoise(state, conditioning, 3, never_cancelled):
        steps.append(progress.step)
        assert not any(torch.equal(old, new) for old, new in zip(before, progress.latents, strict=True))
        before = list(progress.latents)

    assert steps == [1, 2, 3]
    assert all(latents.dtype == torch.float32 for latents in before)


@pytest.mark.parametrize("size", [(64, 64), (1536, 64), (1440, 512), (256, 256)], ids=str)
def test_decoded_image_has_requested_size(pipeline: Pipeline, size: tuple[int, int]) -> None:
    width, height = size
    state = pipeline.init_latents(REQUEST.changed(width=width, height=height, count=2))

    images = pipeline.decode(state, width, height, never_cancelled)

    assert [(image.shape, image.dtype) for image in images] == [((height, width, 3), np.uint8)] * 2


def test_model_without_native_tokens_uses_requested_grid(sketch: Model) -> None:
    whole = Pipeline(replace(sketch, config=replace(sketch.config, native_tokens=None)), "cpu")
    token_px = sketch.config.token_px
    request = REQUEST.changed(width=5 * token_px, height=3 * token_px)

    state = whole.init_latents(request)

    assert (state.rows, state.columns) == (3, 5)
    assert state.latents[0].shape[1] == 15
    [image] = whole.decode(state, request.width, request.height, never_cancelled)
    assert image.shape == (3 * token_px, 5 * token_px, 3)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_encode_and_decode_stop_when_cancelled(sketch: Model, calls: int) -> None:
    pipeline = Pipeline(sketch, "cpu")
    state = pipeline.init_latents(REQUEST)

    with pytest.raises(Cancelled):
        pipeline.encode(REQUEST.prompt, Countdown(calls))
    with pytest.raises(Cancelled):
        pipeline.decode(state, 256, 256, Countdown(calls))


def test_denoising_stops_within_step_when_cancelled(pipeline: Pipeline, sketch: Model) -> None:
    conditioning, state = pipeline.encode(REQUEST.prompt, never_cancelled), pipeline.init_latents(REQUEST)
    blocks = sketch.config.transformer.depth + sketch.config.transformer.depth_single_blocks

    with pytest.raises(Cancelled):
        list(pipeline.denoise(state, conditioning, 4, Countdown(2 * blocks + 2)))

    assert state.step == 1


def test_non_finite_latents_fail_at_their_step(sketch: Model) -> None:
    networks = copy.deepcopy(sketch.networks)
    networks.transformer.final_layer.linear.weight[0, 0] = torch.inf
    broken = Pipeline(replace(sketch, networks=networks), "cpu")
    conditioning, state = broken.encode(REQUEST.prompt, never_cancelled), broken.init_latents(REQUEST)

    with pytest.raises(GenerationFailed, match="not finite at step 1"):
        list(broken.denoise(state, conditioning, 2, never_cancelled))


def test_non_finite_decoded_values_fail(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")
    state = pipeline.init_latents(REQUEST.changed(count=2))
    state.latents[1][0, 0, 0] = torch.nan

    with pytest.raises(GenerationFailed, match="not finite"):
        pipeline.decode(state, 256, 256, never_cancelled)


def test_pixels_are_clamped_and_rounded_to_nearest() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, 1 / 255])

    pixels = to_pixels(values.expand(1, 3, 1, 6))

    assert pixels.shape == (1, 6, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 128]


def test_modulations_are_cached_per_prompt_and_step_count(sketch: Model) -> None:
    pipeline = Pipeline(sketch, "cpu")
    conditioning = pipeline.encode(REQUEST.prompt, never_cancelled)

    two, again, three = (pipeline.modulate(conditioning, steps, never_cancelled) for steps in (2, 2, 3))

    assert again is two
    assert three is not two
