"""Sizes in a request body: presets, WIDTHxHEIGHT, objects, ratios and sides, which must agree."""

from typing import Any

import httpx2
import pytest

from allaprima.api.dialects.aiml.sizes import PRESETS, RATIOS
from allaprima.api.v1.paths import IMAGES_PATH

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"model": "flux/schnell", "prompt": "a boat", "dry_run": True}


@pytest.fixture
def client(shared_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return shared_client


async def size_of(client: httpx2.AsyncClient, **fields: Any) -> tuple[int, int]:
    answer = await client.post(IMAGES_PATH, json=BODY | fields)
    assert answer.status_code == 200, answer.text
    assert "x-ignored-fields" not in answer.headers
    size = answer.json()["image_size"]
    return size["width"], size["height"]


async def refusal_of(client: httpx2.AsyncClient, **fields: Any) -> tuple[str, str]:
    answer = await client.post(IMAGES_PATH, json=BODY | fields)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]["param"], answer.json()["message"]


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("1:1", (1024, 1024)),
        ("4:3", (1024, 768)),
        ("3:4", (768, 1024)),
        ("16:9", (1024, 576)),
        ("9:16", (576, 1024)),
    ],
)
async def test_aspect_ratio_maps_to_preset(client: httpx2.AsyncClient, ratio: str, size: tuple[int, int]) -> None:
    assert await size_of(client, aspect_ratio=ratio) == size
    assert PRESETS[RATIOS[ratio]] == size


@pytest.mark.parametrize("ratio", ["21:9", "1.78", "16/9", "16:9 ", "", 1, 1.5, True, ["1:1"], {"w": 1}])
async def test_unknown_aspect_ratio_is_refused_with_known_ratios(client: httpx2.AsyncClient, ratio: Any) -> None:
    param, message = await refusal_of(client, aspect_ratio=ratio)
    assert param == "aspect_ratio"
    for known in ("'1:1'", "'4:3'", "'3:4'", "'16:9'", "'9:16'"):
        assert known in message


@pytest.mark.parametrize("name", ["image_size", "size"])
@pytest.mark.parametrize("size", ["512x288", "landscape_16_9", {"width": 512, "height": 288}])
async def test_size_that_matches_aspect_ratio_is_kept(client: httpx2.AsyncClient, name: str, size: Any) -> None:
    expected = (1024, 576) if size == "landscape_16_9" else (512, 288)
    assert await size_of(client, **{name: size, "aspect_ratio": "16:9"}) == expected


@pytest.mark.parametrize("name", ["image_size", "size"])
@pytest.mark.parametrize("size", ["512x512", "square", {"width": 512}, "auto"])
async def test_size_that_contradicts_aspect_ratio_is_refused(client: httpx2.AsyncClient, name: str, size: Any) -> None:
    param, message = await refusal_of(client, **{name: size, "aspect_ratio": "16:9"})
    assert param == "aspect_ratio"
    assert name in message


async def test_top_level_width_and_height_set_image_size(client: httpx2.AsyncClient) -> None:
    assert await size_of(client, width=512, height=288) == (512, 288)
    assert await size_of(client, width=512) == await size_of(client, image_size={"width": 512}) == (512, 768)
    assert await size_of(client, height=512) == (1024, 512)
    assert await size_of(client, width=512, height=288, size="512x288", aspect_ratio="16:9") == (512, 288)
    assert await size_of(client, width=None, height=None, aspect_ratio=None) == (1024, 768)


@pytest.mark.parametrize("other", [{"size": "512x512"}, {"image_size": "square"}, {"image_size": {"width": 64}}])
async def test_top_level_sides_that_contradict_size_are_refused(
    client: httpx2.AsyncClient, other: dict[str, Any]
) -> None:
    param, message = await refusal_of(client, width=512, height=288, **other)
    assert param == "width"
    assert next(iter(other)) in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"width": 500, "height": 288}, "width"),
        ({"width": 512, "height": "288"}, "height"),
        ({"width": 512, "height": 288, "aspect_ratio": "1:1"}, "aspect_ratio"),
        ({"width": 4096}, "width"),
        ({"height": True}, "height"),
    ],
)
async def test_invalid_top_level_sides_are_named(
    client: httpx2.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert (await refusal_of(client, **fields))[0] == param
