"""Validation of generation requests, and their metadata."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from allaprima.domain import fields as limits
from allaprima.domain.fields import nearest_side
from allaprima.domain.generation import GeneratedImage, GenerationRequest, ImageFormat, LongPromptPolicy, Timings
from allaprima.errors import InvalidRequest

LEGAL_SIDES = range(64, 1537, 32)
LEGAL: dict[str, Any] = {"prompt": "a boat", "seed": 7, "model": "allaprima/sketch"}


def test_bounds_match_documentation() -> None:
    assert (limits.MIN_SIDE, limits.MAX_SIDE, limits.SIDE_STEP) == (64, 1536, 32)
    assert (limits.DEFAULT_WIDTH, limits.DEFAULT_HEIGHT) == (1024, 768)
    assert (limits.MAX_STEPS, limits.DEFAULT_STEPS, limits.MAX_COUNT, limits.MAX_PROMPT) == (12, 4, 4, 4000)
    assert (limits.MAX_SEED, limits.RANDOM_SEED_BOUND) == (2**63 - 1, 2**32)


def test_default_is_one_1024_by_768_image_in_four_steps() -> None:
    request = GenerationRequest(**LEGAL)
    assert request.model_dump() == LEGAL | {
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
        ("safety_threshold", 1.01),
        ("safety_threshold", -0.01),
        ("image_format", "gif"),
        ("image_format", None),
        ("on_long_prompt", "shorten"),
        # Values of another JSON type are refused, never converted.
        ("prompt", 7),
        ("model", None),
        ("width", "512"),
        ("height", 512.5),
        ("steps", True),
        ("count", [1]),
        ("seed", "7"),
        ("check_safety", 1),
        ("check_safety", "true"),
        ("safety_threshold", True),
        ("unknown", 1),
    ],
)
def test_value_out_of_bounds_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.checked(**LEGAL | {field: value})
    assert [problem.field for problem in caught.value.problems] == [field]


def test_refusal_names_every_invalid_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.checked(prompt="", seed=-1, model="sketch", width=1, height=2, steps=0, count=9)
    assert [problem.field for problem in caught.value.problems] == [
        "prompt", "width", "height", "steps", "count", "seed",
    ]  # fmt: skip


def test_missing_field_is_required() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.checked(prompt="a boat")
    assert [str(problem) for problem in caught.value.problems] == ["model: is required", "seed: is required"]


def test_refusal_states_valid_values() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.checked(**LEGAL | {"width": 1000, "steps": 13, "check_safety": "yes", "image_format": "gif"})
    assert {problem.field: problem.message for problem in caught.value.problems} == {
        "width": "must be a multiple of 32 from 64 to 1536; it is 1000, and the nearest valid side is 992",
        "steps": "must be from 1 to 12; it is 13",
        "check_safety": "must be true or false; it is a string",
        "image_format": "Invalid enum value. Expected 'png' | 'jpeg' | 'webp', received \"gif\"",
    }


def test_integral_float_is_accepted_as_integer() -> None:
    request = GenerationRequest(**LEGAL | {"width": 512.0, "steps": 2.0})
    assert (request.width, request.steps) == (512, 2)
    assert isinstance(request.width, int)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_last_image_has_legal_seed(count: int) -> None:
    largest = 2**63 - count
    assert GenerationRequest(**LEGAL | {"seed": largest, "count": count}).seed == largest
    if count > 1:
        with pytest.raises(InvalidRequest, match=f"must be at most {largest}, because image {count - 1}"):
            GenerationRequest.checked(**LEGAL | {"seed": largest + 1, "count": count})


def test_request_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        GenerationRequest(**LEGAL).seed = 8


@pytest.mark.parametrize("side", LEGAL_SIDES)
def test_nearest_legal_side_of_legal_side_is_itself(side: int) -> None:
    assert GenerationRequest(**LEGAL | {"width": side, "height": side}).height == side
    assert nearest_side(side) == side


@given(st.integers() | st.sampled_from([10**400, -(10**400)]) | st.floats(allow_nan=False))
def test_nearest_legal_side_is_nearest(px: float) -> None:
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
def test_request_round_trips_through_json(**fields: Any) -> None:
    request = GenerationRequest(model="allaprima/sketch", **fields)
    stored = json.loads(json.dumps(request.model_dump(mode="json")))
    assert GenerationRequest.model_validate(stored) == request


def test_changed_request_is_validated_again() -> None:
    request = GenerationRequest(**LEGAL)
    assert request.changed(steps=2) == GenerationRequest(**LEGAL | {"steps": 2})
    with pytest.raises(InvalidRequest, match="steps"):
        request.changed(steps=0)


def test_metadata_has_every_field_that_affects_pixels() -> None:
    request = GenerationRequest(**LEGAL | {"count": 3, "image_format": "webp", "safety_threshold": 0.5})
    assert request.metadata(2) == LEGAL | {"width": 1024, "height": 768, "steps": 4, "seed": 9}


def test_json_schema_states_bounds() -> None:
    shown = GenerationRequest.model_json_schema()["properties"]
    assert (shown["width"]["minimum"], shown["width"]["maximum"]) == (64, 1536)
    assert shown["width"]["multipleOf"] == 32
    assert (shown["steps"]["maximum"], shown["count"]["maximum"]) == (12, 4)
    assert (shown["seed"]["minimum"], shown["seed"]["exclusiveMaximum"]) == (0, 2**63)
    assert shown["prompt"]["maxLength"] == 4000
    assert all(field.get("description") for field in shown.values())


@pytest.mark.parametrize("image_format", ImageFormat)
def test_format_has_media_type(image_format: ImageFormat) -> None:
    assert image_format.content_type == f"image/{image_format}"


def test_inference_seconds_exclude_file_encoding() -> None:
    timings = Timings(text=1, steps=(2, 4), decode=8, safety=16, encode=32)
    assert timings.inference == 31
    assert timings.phases == {"text": 1, "steps": 6, "decode": 8, "safety": 16, "encode": 32}


def test_image_repr_omits_bytes() -> None:
    assert "secret" not in repr(GeneratedImage(b"secret", 1, None, is_flagged=False))
