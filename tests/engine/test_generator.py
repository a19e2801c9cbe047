"""Generation of one request: image sizes, step order, safety check, timings and metadata."""

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


def generate(generator: Generator, request: GenerationRequest) -> GenerationResult:
    return generator.generate(request, never_cancelled, StepCallback())


def open_image(data: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


@pytest.mark.parametrize("size", [(64, 64), (1536, 64), (64, 1536), (1440, 512)], ids=str)
def test_image_has_requested_size(generator: Generator, size: tuple[int, int]) -> None:
    width, height = size

    [image] = generate(generator, REQUEST.changed(width=width, height=height)).images

    opened = open_image(image.data)
    assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", size)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_reported_once_in_order(generator: Generator, steps: int) -> None:
    seen: list[StepDone] = []

    result = generator.generate(REQUEST.changed(steps=steps, count=2), never_cancelled, StepCallback(seen.append))

    assert seen == [StepDone(step, steps) for step in range(1, steps + 1)]
    assert len(result.timings.steps) == steps


def test_each_image_has_its_own_seed(generator: Generator) -> None:
    result = generate(generator, REQUEST.changed(count=4))

    assert [image.seed for image in result.images] == [5, 6, 7, 8]


@pytest.mark.parametrize("image_format", ImageFormat)
def test_file_has_requested_format(generator: Generator, image_format: ImageFormat) -> None:
    [image] = generate(generator, REQUEST.changed(image_format=image_format)).images

    opened = open_image(image.data)
    assert (opened.format, opened.size) == (image_format.name, (256, 256))


def test_result_names_its_model_and_revision(generator: Generator, sketch: Model) -> None:
    result = generate(generator, REQUEST)

    assert (result.model, result.revision) == (sketch.id, sketch.revision)


def test_metadata_keeps_prompt_as_sent(generator: Generator) -> None:
    result = generate(generator, REQUEST.changed(prompt="a (Cabin:1.2)"))

    assert json.loads(open_image(result.images[0].data).info["allaprima"])["prompt"] == "a (Cabin:1.2)"
    assert result.warnings == ("cabin: read as house",)


def test_result_warns_of_unknown_words(generator: Generator) -> None:
    [warning] = generate(generator, REQUEST.changed(prompt="a qwertzuiop apple")).warnings

    assert "qwertzuiop" in warning
    assert "apple" not in warning


def test_inference_time_is_sum_of_phases_without_encoding(generator: Generator) -> None:
    timings = generate(generator, REQUEST.changed(steps=2)).timings

    phases = (timings.text, *timings.steps, timings.decode, timings.safety)
    assert min(*phases, timings.encode) >= 0
    assert min(timings.text, *timings.steps, timings.decode) > 0
    assert timings.inference == pytest.approx(sum(phases))


def test_png_carries_only_its_generation_parameters(generator: Generator, sketch: Model) -> None:
    [_, image] = generate(generator, REQUEST.changed(prompt="un café, 5 °C", count=2)).images

    opened = open_image(image.data)

    assert set(opened.info) == {"parameters", "allaprima"}
    assert json.loads(opened.info["allaprima"]) == {
        "prompt": "un café, 5 °C",
        "seed": 6,
        "steps": 1,
        "width": 256,
        "height": 256,
        "model": sketch.id,
        "revision": sketch.revision,
        "precision": generator.model.precision.value,
    }
    assert str(opened.info["parameters"]) == (
        "un café, 5 °C\n"
        f"Steps: 1, Sampler: Euler, Seed: 6, Size: 256x256, Model hash: {sketch.revision[:10]}, Model: {sketch.id}"
    )


def test_image_at_threshold_is_replaced_by_black_image(sketch: Model, safety: SafetyChecker) -> None:
    [seen] = generate(Generator(Pipeline(sketch, "cpu"), safety, threshold=1.0), REQUEST).images
    assert seen.nsfw_score is not None
    strict = Generator(Pipeline(sketch, "cpu"), safety, threshold=seen.nsfw_score)

    [withheld] = generate(strict, REQUEST).images

    assert withheld.is_flagged
    assert withheld.nsfw_score == seen.nsfw_score
    opened = open_image(withheld.data)
    assert opened.size == (256, 256)
    assert opened.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_image_below_threshold_is_returned_with_score(sketch: Model, safety: SafetyChecker) -> None:
    [image] = generate(Generator(Pipeline(sketch, "cpu"), safety, threshold=1.0), REQUEST).images

    assert not image.is_flagged
    assert image.nsfw_score is not None
    assert 0 <= image.nsfw_score < 1
    assert open_image(image.data).getextrema() != ((0, 0), (0, 0), (0, 0))


def test_request_without_checker_is_not_scored(sketch: Model, safety: SafetyChecker) -> None:
    strict = Generator(Pipeline(sketch, "cpu"), safety, threshold=0.0)

    [image] = generate(strict, REQUEST.changed(check_safety=False)).images

    assert image.nsfw_score is None
    assert not image.is_flagged
    assert open_image(image.data).getextrema() != ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("network", ["transformer", "t5", "clip", "autoencoder"])
def test_non_finite_values_fail_the_request(sketch: Model, safety: SafetyChecker, network: str) -> None:
    networks = copy.deepcopy(sketch.networks)
    with torch.no_grad():
        list(getattr(networks, network).parameters())[-1].fill_(torch.nan)
    broken = Generator(Pipeline(replace(sketch, networks=networks), "cpu"), safety, threshold=0.8)

    with pytest.raises(GenerationFailed, match="not finite"):
        generate(broken, REQUEST)


def test_cancel_check_error_ends_request_before_first_step(generator: Generator) -> None:
    def stop() -> None:
        raise Cancelled

    seen: list[StepDone] = []
    with pytest.raises(Cancelled):
        generator.generate(REQUEST, stop, StepCallback(seen.append))

    assert seen == []
