"""Invalid requests are refused with a message that names every invalid field, and nothing is generated."""

import codecs
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allaprima.api.http.drain import MAX_DISCARDED_BYTES
from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.service.app import Service
from tests.fakes import FakeEngine

# No test changes state that another test reads, so all tests share one service.
pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a lighthouse at dusk"}
MIB = 1024 * 1024


def raw(number: str) -> str:
    """Return a placeholder that `to_json` writes as this literal number, which `json.dumps` could not write."""
    return f"number {number}"


def to_json(value: Any) -> str:
    return re.sub(r'"number ([^"]+)"', r"\1", json.dumps(value))


@pytest.fixture
def client(shared_client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return shared_client


async def refuse(client: httpx2.AsyncClient, *fields: str, **changes: Any) -> str:
    """Post the body with changes; return the message of the refusal, which names these fields in order."""
    answer = await client.post(IMAGES_PATH, content=to_json(BODY | changes))
    return message_of(answer, *fields)


def message_of(answer: httpx2.Response, *fields: str) -> str:
    assert answer.status_code == 400, answer.text[:500]
    body = answer.json()
    assert body["error"]["param"] == fields[0]
    start = "Body validation error! "
    assert body["message"].startswith(start)
    named = [problem.partition(": ")[0] for problem in body["message"].removeprefix(start).split("; ")]
    assert [name for name in named if name in fields] == list(fields)
    return body["message"]


@pytest.fixture(autouse=True)
def _nothing_is_generated(shared: Service, request: pytest.FixtureRequest) -> Iterator[None]:
    engine = shared.roster
    assert isinstance(engine, FakeEngine)
    before = len(engine.requests)
    yield
    if "may_generate" not in request.fixturenames:
        assert len(engine.requests) == before


@pytest.fixture
def may_generate() -> None:
    """Marks a test that sends valid requests, which generate."""


# Sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["width", "height"])
@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        (0, 64),
        (-1, 64),
        (1, 64),
        (17, 64),
        (31, 64),
        (32, 64),
        (63, 64),
        (65, 64),
        (1000, 992),
        (1023, 1024),
        (1025.0, 1024),
        (1537, 1536),
        (1568, 1536),
        (10**9, 1536),
        (-(10**9), 64),
        (2**63, 1536),
        (1e308, 1536),
        (10**400, 1536),
        (-(10**400), 64),
    ],
)
async def test_side_off_grid_is_refused_with_nearest_legal_side(
    client: httpx2.AsyncClient, name: str, value: float, nearest: int
) -> None:
    words = await refuse(client, f"image_size.{name}", image_size={name: value})
    assert f"is {nearest}" in words
    assert "multiple of 32 from 64 to 1536" in words


@pytest.mark.parametrize("name", ["width", "height"])
@pytest.mark.parametrize(
    "value", ["large", "512", "", 1024.5, None, True, False, [512], {"px": 512}, raw("1e309"), raw("-1e309")]
)
async def test_side_that_is_no_integer_is_refused(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    assert "must be an integer" in await refuse(client, f"image_size.{name}", image_size={name: value})


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("17x512", ("size.width",)),
        ("512x0", ("size.height",)),
        ("1537x31", ("size.width", "size.height")),
        ("999999999x64", ("size.width",)),
    ],
)
async def test_size_string_has_same_limits(client: httpx2.AsyncClient, value: str, fields: tuple[str, ...]) -> None:
    await refuse(client, *fields, size=value)


@pytest.mark.parametrize("name", ["image_size", "size"])
@pytest.mark.parametrize(
    "value",
    [
        "large", "", "x", "512", "512x", "x512", "512x512x512", "-512x512", "512 x 512", "5e2x512", "\u0665\u0661x512",
        "\u00b2x512", "1" * 5000 + "x1", "SQUARE", "{width}x{height}", "\ud800", 512, 512.5, True, [], [512, 512],
    ],
)  # fmt: skip
async def test_unreadable_size_is_refused_with_valid_forms(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    words = await refuse(client, name, **{name: value})
    assert "object" in words
    assert "preset" in words or "'landscape_4_3'" in words
    assert "{{" not in words
    assert len(words) < 500


# Seeds, counts, steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [-1, -1.0, 2**63, 2**64, 1e19, 10**400, -(10**400), raw("1e309"), raw("-1e309"), 0.5, "x", "7", True, []]
)
async def test_seed_outside_63_bits_is_refused(client: httpx2.AsyncClient, value: Any) -> None:
    await refuse(client, "seed", seed=value)


@pytest.mark.parametrize("name", ["num_images", "n"])
async def test_seed_that_overflows_at_last_image_is_refused(client: httpx2.AsyncClient, name: str) -> None:
    assert "because image 1 has seed + 1" in await refuse(client, "seed", seed=2**63 - 1, **{name: 2})


@pytest.mark.usefixtures("may_generate")
async def test_largest_seed_is_accepted_for_one_image(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"seed": 2**63 - 1, "num_images": 1, "size": "64x64"})
    assert answer.status_code == 200
    assert answer.json()["seed"] == 2**63 - 1


@pytest.mark.parametrize("name", ["num_images", "n"])
@pytest.mark.parametrize("value", [0, 5, -1, 10**9, -(10**400), 5.0])
async def test_image_count_outside_1_to_4_is_refused(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    assert "must be from 1 to 4" in await refuse(client, name, **{name: value})


@pytest.mark.parametrize("name", ["num_inference_steps", "steps"])
@pytest.mark.parametrize("value", [0, 13, -1, 10**9, -(10**400), 13.0])
async def test_step_count_outside_1_to_12_is_refused(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    assert "must be from 1 to 12" in await refuse(client, name, **{name: value})


@pytest.mark.parametrize("name", ["num_images", "n", "num_inference_steps", "steps", "seed"])
@pytest.mark.parametrize("value", [True, False, "2", "", [2], {"a": 2}, 1.5, raw("1e999")])
async def test_count_that_is_no_integer_is_refused(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    assert "must be an integer" in await refuse(client, name, **{name: value})


# Prompts and models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"),
        (" \t\r\n\u00a0\u2003", "empty"),
        ("x" * 4001, "at most 4000 characters; it has 4001"),
        ("\U0001f98a" * 4001, "at most 4000 characters; it has 4001"),
        ("e" + "\u0301" * 100_000, "at most 4000"),
        ("a\x00b", "NUL"),
        ("\x00", "NUL"),
        ("\ud800", "surrogate"),
        ("a \udfff b", "surrogate"),
        ("\udc00\ud800", "surrogate"),
        (5, "must be a string; it is a number"),
        (True, "must be a string; it is a boolean"),
        ([], "must be a string; it is a list"),
        ({"text": "x"}, "must be a string; it is an object"),
    ],
)
async def test_invalid_prompt_is_refused_with_reason(client: httpx2.AsyncClient, prompt: Any, words: str) -> None:
    assert words in await refuse(client, "prompt", prompt=prompt)


@pytest.mark.usefixtures("may_generate")
@pytest.mark.parametrize(
    "prompt", ["x" * 4000, "\U0001f98a" * 4000, "\u202eright to left\u202c", "e\u0301" * 2000, "\x01\x1b[31m", "\ufeff"]
)
async def test_any_unicode_prompt_of_4000_characters_is_accepted(client: httpx2.AsyncClient, prompt: str) -> None:
    answer = await client.post(IMAGES_PATH, content=to_json(BODY | {"prompt": prompt, "size": "64x64"}))
    assert answer.status_code == 200
    assert answer.json()["prompt"] == prompt


@pytest.mark.parametrize("name", ["prompt", "model"])
async def test_prompt_and_model_are_required(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post(IMAGES_PATH, json={other: value for other, value in BODY.items() if other != name})
    assert message_of(answer, name) == f"Body validation error! {name}: is required"


@pytest.mark.parametrize("name", ["prompt", "model"])
async def test_null_prompt_and_model_are_refused(client: httpx2.AsyncClient, name: str) -> None:
    assert await refuse(client, name, **{name: None}) == f"Body validation error! {name}: must not be null"


@pytest.mark.parametrize("value", [5, True, [], {"id": "flux/schnell"}])
async def test_model_that_is_no_string_is_refused(client: httpx2.AsyncClient, value: Any) -> None:
    assert "must be a string" in await refuse(client, "model", model=value)


@pytest.mark.parametrize("name", ["", "flux/dev", "\x00", "caf\u00e9", "x" * 100_000, "\ud800", "{model}"])
async def test_unknown_model_is_refused_with_available_models(client: httpx2.AsyncClient, name: str) -> None:
    words = await refuse(client, "model", model=name)
    assert "'flux/schnell', 'allaprima/sketch'" in words
    assert len(words) < 500


# Choices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["enable_safety_checker", "sync_mode", "stream"])
@pytest.mark.parametrize("value", [0, 1, 1.0, "true", "false", "", [], {}])
async def test_boolean_field_accepts_only_json_booleans(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    assert "must be true or false" in await refuse(client, name, **{name: value})


async def test_streaming_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    assert "streaming is not supported" in await refuse(client, "stream", stream=True)


@pytest.mark.parametrize("name", ["output_format", "response_format"])
@pytest.mark.parametrize("value", ["gif", "", "PNG", "}{", "{0}", "\ud800", 1, True, [], {"a": 1}])
async def test_unknown_format_is_refused_with_known_formats(client: httpx2.AsyncClient, name: str, value: Any) -> None:
    words = await refuse(client, name, **{name: value})
    assert "Invalid enum value. Expected '" in words
    assert "'url' | 'b64_json', received" in words
    if isinstance(value, str):
        assert words.endswith(f"received {json.dumps(value)}")


async def test_response_format_refuses_file_format(client: httpx2.AsyncClient) -> None:
    await refuse(client, "response_format", response_format="png")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 1, "num_images": 2}, "n"),
        ({"steps": 1, "num_inference_steps": 2}, "steps"),
        ({"size": "512x512", "image_size": "square_hd"}, "size"),
        ({"size": "512x512", "image_size": {"width": 512, "height": 544}}, "size"),
        ({"output_format": "b64_json", "response_format": "url"}, "output_format"),
        ({"output_format": "url", "response_format": "b64_json"}, "output_format"),
    ],
)
async def test_aliases_with_different_values_are_refused(
    client: httpx2.AsyncClient, fields: dict[str, Any], named: str
) -> None:
    assert "contradicts" in await refuse(client, named, **fields)


# Several errors -----------------------------------------------------------------------------------------------------


async def test_refusal_names_every_invalid_field(client: httpx2.AsyncClient) -> None:
    bad = {
        "prompt": "",
        "image_size": {"width": 17, "height": 10**9},
        "num_images": 5,
        "num_inference_steps": 0,
        "seed": -1,
        "enable_safety_checker": "yes",
        "sync_mode": 1,
        "output_format": "gif",
        "response_format": "png",
        "size": 5,
        "n": 0,
        "steps": 13,
        "stream": True,
    }
    words = await refuse(client, next(iter(bad)), **bad)
    for name in bad:
        assert re.search(rf"\b{name}(\.width)?: ", words)


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ({"model": "flux/dev", "num_images": 5}, ("num_images", "model")),
        ({"model": "flux/dev", "prompt": ""}, ("prompt", "model")),
        ({"seed": 2**63 - 1, "num_images": 2, "steps": 13}, ("steps", "seed")),
        ({"seed": 2**63 - 1, "n": 2, "stream": True}, ("stream", "seed")),
        ({"model": None, "prompt": None, "seed": "x"}, ("model", "prompt", "seed")),
    ],
)
async def test_refusal_includes_errors_across_fields(
    client: httpx2.AsyncClient, bad: dict[str, Any], names: tuple[str, ...]
) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | bad)
    assert answer.status_code == 400
    for name in names:
        assert f"{name}: " in answer.json()["message"]


# Bodies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b'[{"model": "flux/schnell", "prompt": "x"}]', b'"text"', b"5", b"null", b"true", b"", b" \n", b"{",
        b'{"model": "flux/schnell", "prompt": "x"', b'{"prompt": "x",}', b"{'prompt': 'x'}", b"{} {}", b"\x00",
        b'{"prompt": "line\nbreak"}', b'{"prompt": "\\x"}', b'{"seed": 01}', b'{"seed": .5}', b'{"seed": +1}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\xff"}', b'\xff\xfe{\x00"\x00', '{"prompt": "x"}'.encode("utf-16"), b"\xef\xbb\xbf",
        b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\xc0\xaf"}',
        b'{"seed": NaN}', b'{"seed": Infinity}', b'{"seed": -Infinity}', b'{"extra": [NaN]}',
    ],
)  # fmt: skip
async def test_body_that_is_no_utf_8_json_object_is_refused(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post(IMAGES_PATH, content=body, headers={"content-type": "application/json"})
    message_of(answer, "body")
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"model": "flux/schnell", "prompt": "x", "prompt": "y"}', "prompt"),
        ('{"model": "flux/schnell", "prompt": "x", "prompt": "x"}', "prompt"),
        ('{"model": "flux/schnell", "prompt": "x", "image_size": {"width": 64, "width": 96}}', "width"),
        ('{"model": "flux/schnell", "prompt": "x", "unknown": [{"a": 1, "b": 2, "a": 3}]}', "a"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"\\ud800": 1, "\\ud800": 2}', "\\ud800"),
    ],
)
async def test_duplicate_name_in_object_is_refused(client: httpx2.AsyncClient, body: str, named: str) -> None:
    answer = await client.post(IMAGES_PATH, content=body)
    assert "is given more than once" in message_of(answer, named)


@pytest.mark.timeout(20)
async def test_duplicate_among_90000_names_is_found_quickly(client: httpx2.AsyncClient) -> None:
    names = [f'"{number:x}":1' for number in range(90_000)]
    message_of(await client.post(IMAGES_PATH, content="{" + ",".join([*names, names[-1]]) + "}"), "15f8f")


@pytest.mark.parametrize("name", ["\ud800", "x\udfff"])
@pytest.mark.parametrize("place", ["body", "image_size"])
async def test_field_name_with_lone_surrogate_is_refused(client: httpx2.AsyncClient, name: str, place: str) -> None:
    shown = name.encode("ascii", "backslashreplace").decode()
    await refuse(client, shown, **({name: 1} if place == "body" else {"image_size": {name: 1}}))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [100_000])
async def test_deeply_nested_body_is_refused(
    client: httpx2.AsyncClient, opening: str, closing: str, depth: int
) -> None:
    nested = opening * depth + "1" + closing * depth
    message_of(await client.post(IMAGES_PATH, content=f'{{"model": "sketch", "prompt": {nested}}}'), "body")
    message_of(await client.post(IMAGES_PATH, content=opening * depth), "body")


async def test_nesting_near_recursion_limit_is_refused_with_400(client: httpx2.AsyncClient) -> None:
    for depth in range(800, 1000, 2):
        nested = "[" * depth + "]" * depth
        answer = await client.post(
            IMAGES_PATH, content=f'{{"n": {nested}, "num_images": {nested}, "prompt": {nested}}}'
        )
        assert answer.status_code == 400


async def test_empty_body_is_refused(client: httpx2.AsyncClient) -> None:
    assert "it is empty" in message_of(await client.post(IMAGES_PATH), "body")


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "x",
        "",
    ],
)
async def test_other_media_type_is_refused(client: httpx2.AsyncClient, media_type: str) -> None:
    answer = await client.post(IMAGES_PATH, content=to_json(BODY), headers={"content-type": media_type})
    assert answer.status_code == 415
    assert answer.json()["message"] == "Unsupported Media Type: the body must be application/json"


@pytest.mark.usefixtures("may_generate")
@pytest.mark.parametrize("media_type", ["application/json", "APPLICATION/JSON; charset=utf-8", None])
async def test_json_media_type_is_accepted_in_any_spelling(client: httpx2.AsyncClient, media_type: str | None) -> None:
    headers = {"content-type": media_type} if media_type else {}
    answer = await client.post(IMAGES_PATH, content=to_json(BODY | {"size": "64x64"}), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP", "\u00e9"])
async def test_compressed_body_is_refused_by_name(client: httpx2.AsyncClient, encoding: str) -> None:
    headers = {b"content-type": b"application/json", b"content-encoding": encoding.encode("latin-1")}
    answer = await client.post(IMAGES_PATH, content=gzip.compress(to_json(BODY).encode()), headers=headers)
    assert answer.status_code == 415
    assert "send the body without compression" in answer.json()["message"]
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.usefixtures("may_generate")
async def test_uncompressed_body_may_name_its_encoding(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    answer = await client.post(IMAGES_PATH, content=to_json(BODY | {"size": "64x64"}), headers=headers)
    assert answer.status_code == 200


@pytest.mark.usefixtures("may_generate")
async def test_byte_order_mark_before_body_is_ignored(client: httpx2.AsyncClient) -> None:
    content = codecs.BOM_UTF8 + to_json(BODY | {"size": "64x64"}).encode()
    headers = {"content-type": "application/json"}
    assert (await client.post(IMAGES_PATH, content=content, headers=headers)).status_code == 200


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32-le"])
async def test_body_in_other_encoding_is_refused(client: httpx2.AsyncClient, encoding: str) -> None:
    content = '{"model": "sketch", "prompt": "le\u00e3o"}'.encode(encoding)
    answer = await client.post(IMAGES_PATH, content=content, headers={"content-type": "application/json"})
    assert message_of(answer, "body")


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65536):
        yield b" " * 65536


async def test_body_over_limit_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"prompt": "x" * (12 * MIB)})
    assert answer.status_code == 413
    assert answer.json()["message"] == f"Payload Too Large: the body may have at most {MIB} bytes"


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}, {"content-length": "-1"}, {"content-length": "x"}])
async def test_large_body_with_wrong_content_length_is_refused(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.post(IMAGES_PATH, content=chunks(2 * MIB), headers=headers)
    assert answer.status_code == 413


async def test_endless_body_is_discarded_up_to_limit(client: httpx2.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    answer = await client.post(IMAGES_PATH, content=endless())
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert sent <= MIB + MAX_DISCARDED_BYTES + 3 * 65536


async def test_body_that_client_holds_back_is_not_asked_for(client: httpx2.AsyncClient) -> None:
    sent = []

    async def body() -> AsyncIterator[bytes]:
        sent.append(True)
        yield b"{}"

    headers = {"expect": "100-continue", "content-length": str(40 * MIB), "content-type": "application/json"}
    answer = await client.post(IMAGES_PATH, content=body(), headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert not sent


async def test_content_length_in_other_digits_is_no_server_error(client: httpx2.AsyncClient) -> None:
    headers = {b"content-length": "\u00b2".encode("latin-1")}
    answer = await client.post(IMAGES_PATH, content=chunks(2 * MIB), headers=headers)
    assert answer.status_code == 413


# Random input -------------------------------------------------------------------------------------------------------

NAMES = (
    "model", "prompt", "image_size", "num_images", "num_inference_steps", "seed", "enable_safety_checker", "sync_mode",
    "output_format", "response_format", "stream", "n", "size", "steps",
)  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
LEGAL = st.sampled_from(
    ["flux/schnell", "sketch", "a boat", "square", "64x64", "png", "url", "b64_json", "auto", {"width": 64}, 1, 2, 1.0]
)
NUMBERS = st.integers() | st.sampled_from([2**63, 10**30, -(10**30), 10**400, -(10**400), raw("1e999"), raw("-0.0")])
LEAVES = st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT | LEGAL
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(ANY_TEXT | st.sampled_from(["width", "height"]), inner, max_size=3)
    ),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("sketch") | ANYTHING, "prompt": st.just("a boat") | ANYTHING},
    optional=dict.fromkeys(NAMES[2:], ANYTHING),
)


@pytest.mark.usefixtures("may_generate")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, extra=st.dictionaries(ANY_TEXT, ANYTHING, max_size=2))
async def test_random_json_object_never_causes_server_error(
    client: httpx2.AsyncClient, body: dict[str, Any], extra: dict[str, Any]
) -> None:
    answer = await client.post(IMAGES_PATH, content=to_json(extra | body))
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert answer.json()["message"].startswith("Body validation error! ")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
async def test_random_bytes_never_cause_server_error(client: httpx2.AsyncClient, body: bytes) -> None:
    assert (await client.post(IMAGES_PATH, content=body)).status_code == 400
