"""A request that exists can be painted as it stands; any other names what is wrong with it."""

import json
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest
from allaprima.request import side_problem
from hypothesis import given
from hypothesis import strategies as st

from allaprima import request as limits
from allaprima.domain.fields import nearest_side
from allaprima.domain.generation import GeneratedImage, GenerationRequest, ImageFormat, LongPromptPolicy, Timings
from allaprima.errors import InvalidRequest

LEGAL_SIDES = range(64, 1537, 32)
LEGAL: dict[str, Any] = {"prompt": "a boat", "seed": 7, "model": "allaprima/sketch"}


def test_the_limits_are_the_documented_ones() -> None:
    assert (limits.MIN_SIDE, limits.MAX_SIDE, limits.SIDE_STEP) == (64, 1536, 32)
    assert (limits.DEFAULT_WIDTH, limits.DEFAULT_HEIGHT) == (1024, 768)
    assert (limits.MAX_STEPS, limits.DEFAULT_STEPS, limits.MAX_COUNT, limits.MAX_PROMPT) == (12, 4, 4, 4000)
    assert (limits.MAX_SEED, limits.RANDOM_SEED_BOUND) == (2**63 - 1, 2**32)


def test_defaults_are_one_checked_png_of_1024_by_768_in_four_steps() -> None:
    request = GenerationRequest(**LEGAL)
    assert asdict(request) == LEGAL | {
        "width": 1024,
        "height": 768,
        "steps": 4,
        "count": 1,
        "check_safety": True,
        "image_format": ImageFormat.PNG,
        "on_long_prompt": LongPromptPolicy.TRUNCATE,
        "safety_threshold": None,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", " \n"),
        ("prompt", "x" * 4001),
        ("prompt", "a\0"),
        ("prompt", "\ud800"),
        ("width", 0),
        ("width", 63),
        ("width", 65),
        ("width", 1568),
        ("height", -64),
        ("height", 10**400),
        ("steps", 0),
        ("steps", 13),
        ("count", 0),
        ("count", 5),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_a_request_out_of_its_limits_does_not_exist(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest(**LEGAL | {field: value})
    assert [problem.field for problem in caught.value.problems] == [field]


def test_every_bad_field_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest(prompt="", seed=-1, model="sketch", width=1, height=2, steps=0, count=9)
    assert [problem.field for problem in caught.value.problems] == [
        "prompt", "width", "height", "steps", "count", "seed",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_last_image_has_a_legal_seed(count: int) -> None:
    largest = 2**63 - count
    assert GenerationRequest(**LEGAL | {"seed": largest, "count": count}).seed == largest
    if count > 1:
        with pytest.raises(InvalidRequest, match=f"room for {count} images"):
            GenerationRequest(**LEGAL | {"seed": largest + 1, "count": count})


def test_a_request_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        GenerationRequest(**LEGAL).seed = 8


@pytest.mark.parametrize("side", LEGAL_SIDES)
def test_a_legal_side_is_its_own_nearest(side: int) -> None:
    assert side_problem(side) is None
    assert nearest_side(side) == side


@given(st.integers() | st.sampled_from([10**400, -(10**400)]) | st.floats(allow_nan=False))
def test_the_nearest_side_is_legal_and_none_is_nearer(px: float) -> None:
    near = nearest_side(px)
    assert near in LEGAL_SIDES
    clamped = min(1536, max(64, px))
    assert abs(near - clamped) == min(abs(side - clamped) for side in LEGAL_SIDES)


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50).filter(
        str.strip
    ),
    seed=st.integers(0, 2**63 - 4),
    width=st.sampled_from(LEGAL_SIDES),
    height=st.sampled_from(LEGAL_SIDES),
    steps=st.integers(1, 12),
    count=st.integers(1, 4),
    check_safety=st.booleans(),
    image_format=st.sampled_from(ImageFormat),
    on_long_prompt=st.sampled_from(LongPromptPolicy),
)
def test_a_request_comes_back_from_json_as_it_was(**fields: Any) -> None:
    request = GenerationRequest(model="allaprima/sketch", **fields)
    assert GenerationRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize("image_format", ImageFormat)
def test_a_format_knows_its_media_type(image_format: ImageFormat) -> None:
    assert image_format.content_type == f"image/{image_format}"


def test_inference_is_the_models_own_work() -> None:
    timings = Timings(text=1, steps=(2, 4), decode=8, safety=16, encode=32)
    assert timings.inference == 31


def test_a_pictures_bytes_stay_out_of_logs() -> None:
    assert "secret" not in repr(GeneratedImage(b"secret", 1, None, is_flagged=False))
