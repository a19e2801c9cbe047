"""Valid requests for images: the documented response, for every form of request that clients use."""

import asyncio
import base64
import hashlib
import io
import re
from typing import Any

import httpx2
import pytest
from PIL import Image

from allaprima.api.dialects.aiml.sizes import PRESETS
from allaprima.api.v1.paths import IMAGES_PATH, OTHER_IMAGES_PATHS
from allaprima.domain.generation import ImageFormat
from allaprima.domain.jobs import JobState
from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from tests.fakes import SCHNELL, FakeClock, FakeEngine, client_of, ended, open_service

BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a lighthouse at dusk"}
#: A request whose images are only in its response.
NOT_STORED: dict[str, Any] = {"store": False, "response_format": "b64_json"}


async def generate(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(IMAGES_PATH, json=BODY | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def last_request(engine: FakeEngine) -> Any:
    """Return the last request that reached the engine."""
    return list(engine.requests.values())[-1]


# The response -------------------------------------------------------------------------------------------------------


async def test_response_has_exactly_documented_members(client: httpx2.AsyncClient) -> None:
    body = await generate(client, num_images=2)
    assert set(body) == {"created", "images", "data", "timings", "seed", "has_nsfw_concepts", "prompt", "meta"}
    for image in body["images"]:
        assert set(image) == {
            "id", "url", "width", "height", "content_type", "seed", "sha256", "nsfw_score", "expires_at", "starred",
            "thumbnail_url",
        }  # fmt: skip
    assert [set(item) for item in body["data"]] == [{"url"}, {"url"}]
    assert set(body["timings"]) == {"inference", "text", "steps", "decode", "safety", "encode"}
    assert set(body["meta"]) == {"model", "revision", "precision", "is_cached", "usage", "warnings"}
    assert set(body["meta"]["usage"]) == {"credits_used", "usd_spent"}


async def test_response_members_have_documented_types(client: httpx2.AsyncClient) -> None:
    body = await generate(client, num_images=2)
    kinds = {name: type(value) for name, value in body.items()}
    assert kinds == {
        "created": int,
        "images": list,
        "data": list,
        "timings": dict,
        "seed": int,
        "has_nsfw_concepts": list,
        "prompt": str,
        "meta": dict,
    }
    assert {name: type(value) for name, value in body["images"][0].items()} == {
        "url": str,
        "width": int,
        "height": int,
        "content_type": str,
        "seed": int,
        "id": str,
        "sha256": str,
        "nsfw_score": float,
        "expires_at": int,
        "starred": bool,
        "thumbnail_url": str,
    }
    assert all(type(flag) is bool for flag in body["has_nsfw_concepts"])
    timings = body["timings"]
    assert all(type(timings[name]) is float for name in ("inference", "text", "decode", "safety", "encode"))
    assert all(type(step) is float for step in timings["steps"])
    assert type(body["meta"]["model"]) is type(body["meta"]["revision"]) is str
    assert all(type(warning) is str for warning in body["meta"]["warnings"])


async def test_response_describes_generated_image(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    body = await generate(client, seed=454423425, image_size={"width": 1440, "height": 512}, model="sketch")
    assert body["created"] == int(clock.now)
    assert body["seed"] == 454423425
    assert body["prompt"] == "a lighthouse at dusk"
    assert body["has_nsfw_concepts"] == [False]
    assert body["meta"]["usage"] == {"credits_used": 0, "usd_spent": 0}
    assert body["meta"]["warnings"] == []
    image = body["images"][0]
    assert (image["width"], image["height"], image["content_type"]) == (1440, 512, "image/png")
    assert image["expires_at"] == int(clock.now + 7 * 86400)
    assert image["nsfw_score"] == 0.01


async def test_response_has_timings_of_engine(client: httpx2.AsyncClient) -> None:
    timings = (await generate(client, num_inference_steps=2))["timings"]
    assert timings == {
        "inference": 0.25 + 2 * 0.125 + 0.5 + 0.0625,
        "text": 0.25,
        "steps": [0.125, 0.125],
        "decode": 0.5,
        "safety": 0.0625,
        "encode": 0.03125,
    }


async def test_image_link_needs_no_key(client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    image = (await generate(client, image_size="square"))["images"][0]
    assert re.fullmatch(r"http://images\.test/files/[^/]+/[^/]+\.png", image["url"])
    file = await anonymous.get(image["url"])
    assert file.status_code == 200
    assert hashlib.sha256(file.content).hexdigest() == image["sha256"]
    assert Image.open(io.BytesIO(file.content)).size == (512, 512)


async def test_response_has_tracing_and_cost_headers(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-aimlapi-credits-used"] == "0"
    assert answer.headers["x-aimlapi-usd-spent"] == "0.000000000"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-inference-id"])
    assert answer.headers["x-request-id"] == answer.headers["x-inference-id"] == answer.headers["x-fal-request-id"]
    assert "x-client-request-id" not in answer.headers
    assert "x-ignored-fields" not in answer.headers


async def test_inference_id_is_job_id(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY)
    assert list(engine.requests) == [answer.headers["x-inference-id"]]


async def test_valid_client_request_id_is_echoed(client: httpx2.AsyncClient) -> None:
    for client_id in ("a", "A-1_b.c:d", "x" * 128):
        answer = await client.get("/health", headers={"X-Client-Request-Id": client_id})
        assert answer.headers["x-client-request-id"] == client_id


async def test_invalid_client_request_id_is_ignored(client: httpx2.AsyncClient) -> None:
    for client_id in ("", "x" * 129, "a b", "a/b", "caf\u00e9", "a\tb", "a;b"):
        answer = await client.get("/health", headers={b"X-Client-Request-Id": client_id.encode()})
        assert answer.status_code == 200
        assert "x-client-request-id" not in answer.headers


# Paths and keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OTHER_IMAGES_PATHS)
async def test_every_published_path_generates(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=BODY | {"image_size": "square"})
    assert answer.status_code == 200
    assert answer.json()["images"][0]["width"] == 512


def test_published_paths_are_complete() -> None:
    assert len({IMAGES_PATH, *OTHER_IMAGES_PATHS}) == 8
    assert {
        IMAGES_PATH,
        f"{IMAGES_PATH}/",
        "/images/generations",
        "/images/generations/",
        f"{IMAGES_PATH}/with-url",
    } <= {IMAGES_PATH, *OTHER_IMAGES_PATHS}


async def test_every_authorization_form_is_accepted(anonymous: httpx2.AsyncClient, key: str) -> None:
    for form in ("Bearer {}", "bearer {}", "BEARER  {}", "Key {}", "key {}", "Key my-id:{}"):
        answer = await anonymous.post(IMAGES_PATH, json=BODY, headers={"authorization": form.format(key)})
        assert answer.status_code == 200, form


async def test_other_authorization_form_is_refused(anonymous: httpx2.AsyncClient, key: str) -> None:
    for form in ("{}", "Basic {}", "Bearer", "Bearer ", "Bearer {} x", "Bearer id:{}", "Bearer {}x"):
        answer = await anonymous.post(IMAGES_PATH, json=BODY, headers={"authorization": form.format(key)})
        assert answer.status_code == 401, form
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["message"].startswith("This request requires a valid API key.")


async def test_request_without_key_is_refused(anonymous: httpx2.AsyncClient, engine: FakeEngine) -> None:
    assert (await anonymous.post(IMAGES_PATH, json=BODY)).status_code == 401
    assert not engine.requests


# Fields -------------------------------------------------------------------------------------------------------------


async def test_default_is_one_1024_by_768_image_in_four_steps(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    await generate(client)
    request = last_request(engine)
    assert (request.width, request.height, request.steps, request.count) == (1024, 768, 4, 1)
    assert request.check_safety
    assert request.image_format is ImageFormat.PNG


async def test_preset_has_documented_size(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    assert PRESETS == {
        "square_hd": (1024, 1024),
        "square": (512, 512),
        "portrait_4_3": (768, 1024),
        "portrait_16_9": (576, 1024),
        "landscape_4_3": (1024, 768),
        "landscape_16_9": (1024, 576),
    }
    for preset, size in PRESETS.items():
        image = (await generate(client, image_size=preset))["images"][0]
        assert (image["width"], image["height"]) == size == (last_request(engine).width, last_request(engine).height)


SIZES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({"size": "512x512"}, (512, 512)),
    ({"size": "1536X64"}, (1536, 64)),
    ({"size": "auto"}, (1024, 768)),
    ({"size": "square"}, (512, 512)),
    ({"size": {"width": 64, "height": 96}}, (64, 96)),
    ({"image_size": "640x480"}, (640, 480)),
    ({"image_size": {"width": 512}}, (512, 768)),
    ({"image_size": {"height": 512}}, (1024, 512)),
    ({"image_size": {}}, (1024, 768)),
    ({"image_size": {"width": 512.0, "height": 512.0}}, (512, 512)),
    ({"image_size": None}, (1024, 768)),
    ({"image_size": {"width": 512, "height": 512}, "size": "512x512"}, (512, 512)),
    ({"image_size": {"width": 1024}, "size": "1024x768"}, (1024, 768)),
    ({"image_size": "landscape_4_3", "size": "auto"}, (1024, 768)),
    ({"image_size": None, "size": "512x512"}, (512, 512)),
]


async def test_size_is_accepted_in_every_form(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    for fields, size in SIZES:
        image = (await generate(client, **fields))["images"][0]
        assert (image["width"], image["height"]) == size == (last_request(engine).width, last_request(engine).height), (
            fields
        )


async def test_n_and_steps_are_aliases(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    body = await generate(client, n=3, steps=12, size="64x64")
    assert (last_request(engine).count, last_request(engine).steps) == (3, 12)
    assert len(body["images"]) == len(body["data"]) == len(body["has_nsfw_concepts"]) == 3


async def test_equal_values_under_two_names_are_accepted(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    await generate(client, n=2, num_images=2.0, steps=1, num_inference_steps=1)
    assert (last_request(engine).count, last_request(engine).steps) == (2, 1)


async def test_integral_floats_are_accepted_as_integers(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    body = await generate(client, num_images=2.0, num_inference_steps=3.0, seed=7.0)
    assert (last_request(engine).count, last_request(engine).steps, last_request(engine).seed) == (2, 3, 7)
    assert type(body["seed"]) is int


async def test_null_field_takes_default(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    names = (
        "image_size", "num_images", "num_inference_steps", "seed", "enable_safety_checker", "sync_mode",
        "output_format", "response_format", "stream", "n", "size", "steps",
    )  # fmt: skip
    body = await generate(client, **dict.fromkeys(names))
    request = last_request(engine)
    assert (request.width, request.height, request.steps, request.count) == (1024, 768, 4, 1)
    assert request.check_safety
    assert body["images"][0]["content_type"] == "image/png"


# Seeds --------------------------------------------------------------------------------------------------------------


async def test_image_i_has_seed_plus_i(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    body = await generate(client, seed=41, num_images=4)
    assert [image["seed"] for image in body["images"]] == [41, 42, 43, 44]
    assert body["seed"] == last_request(engine).seed == 41
    files = [await client.get(image["url"]) for image in body["images"]]
    colours = [Image.open(io.BytesIO(file.content)).getpixel((0, 0)) for file in files]
    assert colours == [(255, 41, 0), (255, 42, 0), (255, 43, 0), (255, 44, 0)]


async def test_largest_seed_is_exact(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    body = await generate(client, seed=2**63 - 1)
    assert body["seed"] == body["images"][0]["seed"] == last_request(engine).seed == 2**63 - 1


async def test_seed_zero_is_accepted(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    assert (await generate(client, seed=0))["seed"] == last_request(engine).seed == 0


async def test_random_seed_has_32_bits_and_is_returned(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    seeds = [(await generate(client, size="64x64"))["seed"] for _ in range(5)]
    assert seeds == [request.seed for request in engine.requests.values()]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) > 1


# Formats and delivery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
async def test_output_format_sets_file_format(client: httpx2.AsyncClient, name: str) -> None:
    image = (await generate(client, output_format=name, size="64x64"))["images"][0]
    assert image["content_type"] == f"image/{name}"
    file = await client.get(image["url"])
    assert file.headers["content-type"] == f"image/{name}"
    assert Image.open(io.BytesIO(file.content)).format == name.upper()


@pytest.mark.parametrize("fields", [{"response_format": "b64_json"}, {"output_format": "b64_json"}])
async def test_base64_response_has_no_url_in_data(client: httpx2.AsyncClient, fields: dict[str, str]) -> None:
    body = await generate(client, **fields, n=2, size="64x64")
    assert [set(item) for item in body["data"]] == [{"b64_json"}, {"b64_json"}]
    for item, image in zip(body["data"], body["images"], strict=True):
        assert hashlib.sha256(base64.b64decode(item["b64_json"], validate=True)).hexdigest() == image["sha256"]
        assert image["url"].startswith("http://images.test/files/")


@pytest.mark.parametrize("fields", [{"response_format": "url"}, {"output_format": "url"}, {}])
async def test_url_response_has_no_base64_in_data(client: httpx2.AsyncClient, fields: dict[str, str]) -> None:
    body = await generate(client, **fields, size="64x64")
    assert body["data"] == [{"url": body["images"][0]["url"]}]


async def test_output_format_applies_to_base64_response(client: httpx2.AsyncClient) -> None:
    body = await generate(client, output_format="jpeg", response_format="b64_json", size="64x64")
    image = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
    assert image.format == "JPEG"


async def test_sync_mode_returns_data_url(client: httpx2.AsyncClient) -> None:
    body = await generate(client, sync_mode=True, output_format="webp", size="64x64")
    start, _, text = body["images"][0]["url"].partition(",")
    assert start == "data:image/webp;base64"
    assert hashlib.sha256(base64.b64decode(text, validate=True)).hexdigest() == body["images"][0]["sha256"]


async def test_sync_mode_and_base64_can_be_combined(client: httpx2.AsyncClient) -> None:
    body = await generate(client, sync_mode=True, response_format="b64_json", size="64x64")
    start, _, text = body["images"][0]["url"].partition(",")
    assert start == "data:image/png;base64"
    assert body["data"] == [{"b64_json": text}]


async def test_stream_false_is_accepted(client: httpx2.AsyncClient) -> None:
    await generate(client, stream=False)


# Safety -------------------------------------------------------------------------------------------------------------


async def test_withheld_image_is_black_and_reported_at_its_position(
    client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.flagged = frozenset({1})
    body = await generate(client, num_images=3, size="64x64")
    assert body["has_nsfw_concepts"] == [False, True, False]
    assert [image["nsfw_score"] for image in body["images"]] == [0.01, 0.99, 0.01]
    file = await client.get(body["images"][1]["url"])
    assert Image.open(io.BytesIO(file.content)).getpixel((0, 0)) == (0, 0, 0)


async def test_disabled_safety_checker_gives_no_score(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    body = await generate(client, enable_safety_checker=False)
    assert last_request(engine).check_safety is False
    assert body["images"][0]["nsfw_score"] is None
    assert body["has_nsfw_concepts"] == [False]


async def test_response_includes_engine_warnings(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.warnings = ("the prompt was cut",)
    assert (await generate(client, model="sketch"))["meta"]["warnings"] == ["the prompt was cut"]


LONG = " ".join(["apple"] * 13)


async def test_long_prompt_is_refused_if_requested(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"prompt": LONG, "on_long_prompt": "refuse"})

    assert answer.status_code == 400
    assert "prompt: has 3 tokens more than the model reads; shorten it" in answer.text
    assert not engine.requests


@pytest.mark.parametrize(("prompt", "choice"), [(LONG, "truncate"), (LONG, None), ("an apple", "refuse")])
async def test_short_or_truncated_prompt_is_accepted(
    client: httpx2.AsyncClient, prompt: str, choice: str | None
) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"prompt": prompt, "on_long_prompt": choice})
    assert answer.status_code == 200


async def test_unknown_on_long_prompt_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"on_long_prompt": "shorten"})
    assert answer.status_code == 400
    assert "on_long_prompt: Invalid enum value. Expected 'truncate' | 'refuse', received" in answer.text


# Models -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flux/schnell", "flux-schnell", "FLUX.1-schnell", "black-forest-labs/FLUX.1-schnell"])
async def test_response_names_fallback_model(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"model": name})
    assert answer.headers["x-model"] == "allaprima/sketch"
    meta = answer.json()["meta"]
    assert meta["model"] == "allaprima/sketch"
    assert meta["revision"] == "5" * 40
    assert meta["warnings"] == ["the weights of flux/schnell are not loaded; allaprima/sketch generates instead"]


async def test_loaded_model_serves_its_own_name(tmp_path: Any, clock: FakeClock) -> None:
    async with (
        open_service(tmp_path, FakeEngine(SCHNELL), clock) as service,
        client_of(service, key=service.first_key) as client,
    ):
        answer = await client.post(IMAGES_PATH, json=BODY)
        assert answer.headers["x-model"] == "flux/schnell"
        assert answer.json()["meta"]["warnings"] == []


async def test_missing_model_without_fallback_names_loaded_models(
    tmp_path: Any, engine: FakeEngine, clock: FakeClock
) -> None:
    async with (
        open_service(tmp_path, engine, clock, engine_settings={"has_fallback": False}) as service,
        client_of(service, key=service.first_key) as client,
    ):
        answer = await client.post(IMAGES_PATH, json=BODY)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "model"
        assert "it serves 'allaprima/sketch'" in answer.json()["message"]


# Ignored fields -----------------------------------------------------------------------------------------------------


async def test_ignored_fields_are_named(client: httpx2.AsyncClient) -> None:
    inert = {"guidance_scale": 3.5, "acceleration": "none", "user": None, "quality": "hd"}
    answer = await client.post(
        IMAGES_PATH, json=BODY | {"model": "sketch", "image_size": {"width": 512, "depth": 2}} | inert
    )
    assert answer.status_code == 200
    assert answer.headers["x-ignored-fields"] == "guidance_scale, acceleration, user, quality, image_size.depth"
    assert answer.json()["meta"]["warnings"] == [
        "ignored fields: guidance_scale, acceleration, user, quality, image_size.depth"
    ]


HOSTILE_NAMES = [
    "a\r\nset-cookie: taken=1", "\n", "\x00", "\x7f", "caf\u00e9", "\U0001f98a" * 60, "", " ", " a ", "a, b", "{name}",
    "__proto__", "model_config", "model_fields", "model_dump", "__class__", "x" * 999, "self", "model_extra", "copy",
]  # fmt: skip


async def test_hostile_field_name_cannot_forge_headers(client: httpx2.AsyncClient) -> None:
    for name in HOSTILE_NAMES:
        for extra in ({name: 1}, {"image_size": {"width": 64, "height": 64, name: 1}}):
            answer = await client.post(IMAGES_PATH, json=BODY | extra)
            assert answer.status_code == 200, name
            assert re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?|", answer.headers["x-ignored-fields"]), name
            assert "set-cookie" not in answer.headers
            assert answer.json()["meta"]["warnings"][-1].startswith("ignored fields: ")


async def test_at_most_32_ignored_fields_are_named_and_others_are_counted(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"\U0001f98a" * 64 + str(number): 1 for number in range(2000)})
    assert answer.status_code == 200
    names = answer.headers["x-ignored-fields"].split(", ")
    assert len(names) == 32
    assert all(len(name) <= 64 for name in names)
    [warning] = [text for text in answer.json()["meta"]["warnings"] if text.startswith("ignored fields")]
    assert warning == f"ignored fields: {', '.join(names)} and 1968 more"


# Wait timeout and stop ----------------------------------------------------------------------------------------------


async def test_job_continues_after_wait_timeout(service: Service, key: str, engine: FakeEngine) -> None:
    engine.hold()
    async with client_of(service, ServerSettings(wait_s=0.05), key=key) as client:
        answer = await client.post(IMAGES_PATH, json=BODY)
    assert answer.status_code == 504
    body = answer.json()
    assert body["message"] == "Generation timeout"
    assert body["job_id"] == answer.headers["x-inference-id"]
    engine.release()
    assert (await ended(service, body["job_id"])).state is JobState.SUCCEEDED


@pytest.mark.parametrize("ignores_cancel", [False, True])
async def test_ephemeral_job_is_cancelled_after_wait_timeout(
    service: Service, key: str, engine: FakeEngine, ignores_cancel: bool
) -> None:
    engine.hold()
    engine.ignores_cancel = ignores_cancel
    async with client_of(service, ServerSettings(wait_s=0.05), key=key) as client:
        answer = await client.post(IMAGES_PATH, json=BODY | NOT_STORED)
    assert (answer.status_code, answer.json()["message"]) == (504, "Generation timeout")
    assert answer.headers["x-should-retry"] == "false"
    engine.ignores_cancel = False
    engine.cancel(answer.json()["job_id"])
    assert (await ended(service, answer.json()["job_id"])).state is JobState.CANCELLED


@pytest.mark.parametrize(("stored", "should_retry"), [(True, "false"), (False, None)])
async def test_draining_error_names_only_resumable_job(
    service: Service, key: str, engine: FakeEngine, stored: bool, should_retry: str | None
) -> None:
    engine.hold()
    async with client_of(service, key=key) as client:
        asking = asyncio.ensure_future(client.post(IMAGES_PATH, json=BODY | ({} if stored else NOT_STORED)))
        await engine.until_held()
        service.lifecycle.drain()
        answer = await asking
    assert answer.status_code == 503
    assert ("job_id" in answer.json()) is stored
    assert answer.headers.get("x-should-retry") == should_retry
