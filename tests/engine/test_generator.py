"""One request to finished files: sizes to the pixel, steps in order, safety, honest timings, honest text."""

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from allaprima.domain.generation import GenerationRequest, GenerationResult, ImageFormat
from allaprima.domain.models import SKETCH_ID
from allaprima.domain.progress import StepCallback, StepDone
from allaprima.engine.generator import Generator
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.errors import Cancelled, GenerationFailed
from allaprima.flux import never_cancelled
from allaprima.weights.networks import Model

REQUEST = GenerationRequest(prompt="a red apple", seed=5, model=SKETCH_ID, width=256, height=256, steps=1)


def paint(painter: Generator, request: GenerationRequest) -> GenerationResult:
    return painter.paint(request, never_cancelled, StepCallback())


def open_picture(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("size", [(64, 64), (1536, 64), (64, 1536), (1440, 512)], ids=str)
def test_a_picture_has_exactly_the_size_asked_for(painter: Generator, size: tuple[int, int]) -> None:
    width, height = size

    [image] = paint(painter, REQUEST.changed(width=width, height=height)).images

    picture = open_picture(image.data)
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)


@pytest.mark.parametrize("steps", [1, 12])
def test_every_step_is_reported_once_and_in_order(painter: Generator, steps: int) -> None:
    seen: list[StepDone] = []

    painting = painter.paint(REQUEST.changed(steps=steps, count=2), never_cancelled, StepCallback(seen.append))

    assert seen == [StepDone(step, steps) for step in range(1, steps + 1)]
    assert len(painting.timings.steps) == steps


def test_each_image_reports_its_own_seed(painter: Generator) -> None:
    painting = paint(painter, REQUEST.changed(count=4))

    assert [image.seed for image in painting.images] == [5, 6, 7, 8]


@pytest.mark.parametrize("image_format", ImageFormat)
def test_the_file_is_of_the_format_asked_for(painter: Generator, image_format: ImageFormat) -> None:
    [image] = paint(painter, REQUEST.changed(image_format=image_format)).images

    picture = open_picture(image.data)
    assert (picture.format, picture.size) == (image_format.name, (256, 256))


def test_a_painting_names_its_model_and_revision(painter: Generator, sketch: Model) -> None:
    painting = paint(painter, REQUEST)

    assert (painting.model, painting.revision) == (sketch.id, sketch.revision)


def test_a_painting_says_which_words_were_not_known(painter: Generator) -> None:
    [warning] = paint(painter, REQUEST.changed(prompt="a qwertzuiop apple")).warnings

    assert "qwertzuiop" in warning
    assert "apple" not in warning


def test_timings_are_not_negative_and_inference_is_their_sum_without_encoding(painter: Generator) -> None:
    timings = paint(painter, REQUEST.changed(steps=2)).timings

    phases = (timings.text, *timings.steps, timings.decode, timings.safety)
    assert min(*phases, timings.encode) >= 0
    assert min(timings.text, *timings.steps, timings.decode) > 0
    assert timings.inference == pytest.approx(sum(phases))


def test_a_png_tells_what_paints_it_again_and_nothing_else(painter: Generator, sketch: Model) -> None:
    [_, image] = paint(painter, REQUEST.changed(prompt="un café, 5 °C", count=2)).images

    picture = open_picture(image.data)

    assert set(picture.info) == {"parameters", "allaprima"}
    assert json.loads(picture.info["allaprima"]) == {
        "prompt": "un café, 5 °C",
        "seed": 6,
        "steps": 1,
        "width": 256,
        "height": 256,
        "model": sketch.id,
        "revision": sketch.revision,
        "precision": painter.model.precision.value,
    }
    assert str(picture.info["parameters"]) == (
        "un café, 5 °C\n"
        f"Steps: 1, Sampler: Euler, Seed: 6, Size: 256x256, Model hash: {sketch.revision[:10]}, Model: {sketch.id}"
    )


def test_a_picture_at_the_threshold_is_withheld_as_black_of_the_same_size(sketch: Model, safety: SafetyChecker) -> None:
    [seen] = paint(Generator(Pipeline(sketch, "cpu"), safety, threshold=1.0), REQUEST).images
    assert seen.nsfw_score is not None
    strict = Generator(Pipeline(sketch, "cpu"), safety, threshold=seen.nsfw_score)

    [withheld] = paint(strict, REQUEST).images

    assert withheld.is_flagged
    assert withheld.nsfw_score == seen.nsfw_score
    picture = open_picture(withheld.data)
    assert picture.size == (256, 256)
    assert picture.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_a_picture_below_the_threshold_is_shown_with_its_score(sketch: Model, safety: SafetyChecker) -> None:
    [image] = paint(Generator(Pipeline(sketch, "cpu"), safety, threshold=1.0), REQUEST).images

    assert not image.is_flagged
    assert image.nsfw_score is not None
    assert 0 <= image.nsfw_score < 1
    assert open_picture(image.data).getextrema() != ((0, 0), (0, 0), (0, 0))


def test_a_picture_is_not_looked_at_when_the_request_says_so(sketch: Model, safety: SafetyChecker) -> None:
    strict = Generator(Pipeline(sketch, "cpu"), safety, threshold=0.0)

    [image] = paint(strict, REQUEST.changed(check_safety=False)).images

    assert image.nsfw_score is None
    assert not image.is_flagged
    assert open_picture(image.data).getextrema() != ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("network", ["transformer", "t5", "clip", "autoencoder"])
def test_a_model_that_gives_no_finite_values_paints_nothing(sketch: Model, safety: SafetyChecker, network: str) -> None:
    networks = copy.deepcopy(sketch.networks)
    with torch.no_grad():
        list(getattr(networks, network).parameters())[-1].fill_(torch.nan)
    broken = Generator(Pipeline(replace(sketch, networks=networks), "cpu"), safety, threshold=0.8)

    with pytest.raises(GenerationFailed, match="not finite"):
        paint(broken, REQUEST)


def test_whatever_the_check_raises_ends_the_painting_before_its_first_step(painter: Generator) -> None:
    def stop() -> None:
        raise Cancelled

    seen: list[StepDone] = []
    with pytest.raises(Cancelled):
        painter.paint(REQUEST, stop, StepCallback(seen.append))

    assert seen == []
