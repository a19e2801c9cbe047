"""Errors over HTTP: the documented body, the order of checks, and CORS."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.api.http.request_id import EXPOSED_HEADERS
from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.errors import GenerationFailed
from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from tests.fakes import FakeClock, FakeEngine, client_of, open_service, with_clock

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
MEMBERS = {"requestId", "statusCode", "timestamp", "path", "message", "error"}
ORIGIN = {"origin": "https://page.example"}


def check_body(answer: httpx2.Response, status: int, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Assert that an answer is an error in the documented form, and return its body."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) - {"job_id"} == MEMBERS
    assert body["requestId"] == answer.headers["x-inference-id"] == answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body["requestId"])
    assert body["statusCode"] == status
    assert type(body["statusCode"]) is int
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert datetime.fromisoformat(body["timestamp"])
    assert body["path"] == answer.request.url.path
    assert body["error"] == {"message": body["message"], "type": kind, "param": param, "code": code}
    return body


# The body -----------------------------------------------------------------------------------------------------------


async def test_invalid_fields_answer_400(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, json=BODY | {"n": 0, "steps": 0})
    body = check_body(answer, 400, "invalid_request_error", "invalid_request", "n")
    assert (
        body["message"]
        == "Body validation error! n: must be from 1 to 4; it is 0; steps: must be from 1 to 12; it is 0"
    )
    assert "job_id" not in body


async def test_missing_key_answers_401(anonymous: httpx2.AsyncClient) -> None:
    body = check_body(await anonymous.post(IMAGES_PATH, json=BODY), 401, "authentication_error", "invalid_api_key")
    assert body["message"].startswith("This request requires a valid API key.")


@pytest.mark.parametrize(
    "path", ["/playground", "/v1", "/v1/image", "/v2/images/generations", "/files", "/v1/images/edits"]
)
async def test_unknown_path_answers_404(anonymous: httpx2.AsyncClient, path: str) -> None:
    check_body(await anonymous.get(path), 404, "not_found_error", "not_found")
    check_body(await anonymous.post(path, json={}), 404, "not_found_error", "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_wrong_method_answers_405_with_allowed_methods(anonymous: httpx2.AsyncClient, method: str) -> None:
    answer = await anonymous.request(method, IMAGES_PATH)
    body = check_body(answer, 405, "invalid_request_error", "method_not_allowed")
    assert body["message"] == "Method Not Allowed"
    assert "POST" in answer.headers["allow"]


async def test_large_body_answers_413(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, content=b" " * (1024 * 1024 + 1))
    check_body(answer, 413, "invalid_request_error", "payload_too_large")


async def test_other_media_type_answers_415(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES_PATH, content=b"x", headers={"content-type": "text/plain"})
    check_body(answer, 415, "invalid_request_error", "unsupported_media_type")


async def test_full_queue_answers_429_with_retry_after(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with (
        open_service(tmp_path, engine, clock, engine_settings={"queue_size": 1}) as service,
        client_of(service, key=service.first_key) as client,
    ):
        first = asyncio.create_task(client.post(IMAGES_PATH, json=BODY))
        await engine.until_held()
        answer = await client.post(IMAGES_PATH, json=BODY)
        body = check_body(answer, 429, "rate_limit_error", "queue_full")
        assert body["message"].startswith("Too Many Requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert int(answer.headers["retry-after-ms"]) <= 1000 * int(answer.headers["retry-after"])
        engine.release()
        assert (await first).status_code == 200


async def test_exceeded_rate_limit_answers_429_with_limit_headers(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    async with (
        open_service(tmp_path, engine, clock, server={"requests_per_minute": 2}) as service,
        client_of(service, key=service.first_key) as client,
    ):
        assert (await client.post(IMAGES_PATH, json=BODY | {"seed": -1})).status_code == 400
        answers = [await client.post(IMAGES_PATH, json=BODY) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        body = check_body(answers[2], 429, "rate_limit_error", "rate_limit_exceeded")
        assert body["message"] == "Too Many Requests: the limit is 2 requests per minute"
        assert answers[2].headers["retry-after"] == "30"
        names = [f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")]
        assert [[answer.headers[name] for name in names] for answer in answers] == [
            ["2", "1", "30.000s"],
            ["2", "0", "60.000s"],
            ["2", "0", "30.000s"],
        ]
        clock.now += 30
        assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 200
    assert len(engine.requests) == 3


async def test_failed_job_answers_500_with_reason(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.failure = GenerationFailed("the colours ran out")
    body = check_body(await client.post(IMAGES_PATH, json=BODY), 500, "server_error", "generation_failed")
    assert body["message"] == "the colours ran out"


async def test_cancelled_job_answers_409(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    waiting = asyncio.create_task(client.post(IMAGES_PATH, json=BODY))
    await engine.until_held()
    engine.cancel(engine.held[0])
    answer = await waiting
    check_body(answer, 409, "invalid_request_error", "cancelled")
    assert answer.headers["x-should-retry"] == "false"


async def test_stopping_server_answers_503_with_retry_after(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock) as service:
        client = client_of(service, key=service.first_key)
        waiting = asyncio.create_task(client.post(IMAGES_PATH, json=BODY))
        await engine.until_held()
    answer = await waiting
    check_body(answer, 503, "server_error", "draining")
    assert int(answer.headers["retry-after"]) >= 1


async def test_wait_timeout_answers_504_with_job_id(service: Service, key: str, engine: FakeEngine) -> None:
    engine.hold()
    async with client_of(service, ServerSettings(wait_s=0.05), key=key) as client:
        answer = await client.post(IMAGES_PATH, json=BODY)
    body = check_body(answer, 504, "server_error", "generation_timeout")
    assert body["message"] == "Generation timeout"
    assert body["job_id"] == answer.headers["x-inference-id"]
    # OpenAI's client would retry otherwise, and the images would be generated twice.
    assert answer.headers["x-should-retry"] == "false"


class BrokenClock(FakeClock):
    """A clock that fails."""

    def __call__(self) -> float:
        raise RuntimeError("the spring of this clock is a secret")


@pytest.fixture
async def broken(service: Service, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that has an unexpected error at /v1/billing/balance."""
    async with client_of(with_clock(service, BrokenClock()), key=key) as opened:
        yield opened


async def test_unexpected_error_answers_500_without_details(
    broken: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = check_body(await broken.get("/v1/billing/balance"), 500, "server_error", "internal_error")
    assert body["message"] == "Internal server error"
    assert "secret" not in json.dumps(body)
    assert "the spring of this clock" in caplog.text


async def test_unexpected_error_has_cors_and_tracing_headers(broken: httpx2.AsyncClient) -> None:
    answer = await broken.get("/v1/billing/balance", headers=ORIGIN | {"x-client-request-id": "mine"})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-client-request-id"] == "mine"


async def test_undecodable_path_answers_404(anonymous: httpx2.AsyncClient) -> None:
    for path in ("/%ED%A0%80", "/%00", "/%0d%0aset-cookie:%20x", "/%C3%BC", "/%FF"):
        answer = await anonymous.get(path)
        assert answer.status_code == 404
        assert set(answer.json()) == MEMBERS
        assert "set-cookie" not in answer.headers


# The order of checks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer unknown"}, {"content-type": "text/plain"}])
async def test_body_is_not_parsed_without_valid_key(anonymous: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"no JSON" * 10_000

    answer = await anonymous.post(IMAGES_PATH, content=body(), headers=headers)
    assert answer.status_code == 401


async def test_size_is_checked_before_json_and_json_before_fields(client: httpx2.AsyncClient) -> None:
    assert (await client.post(IMAGES_PATH, content=b"{" * (1024 * 1024 + 1))).status_code == 413
    assert (await client.post(IMAGES_PATH, content=b'{"n": 0, "n": 0')).json()["error"]["param"] == "body"


async def test_fields_are_checked_before_queue(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.hold()
    async with (
        open_service(tmp_path, engine, clock, engine_settings={"queue_size": 1}) as service,
        client_of(service, ServerSettings(wait_s=0.05), key=service.first_key) as client,
    ):
        assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 504
        assert (await client.post(IMAGES_PATH, json=BODY | {"n": 9})).status_code == 400
        assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 429


async def test_revoked_key_is_refused_at_once(service: Service, client: httpx2.AsyncClient, key: str) -> None:
    assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 200
    await service.keys.revoke(key[3:11])
    assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 401


# CORS -----------------------------------------------------------------------------------------------------------------


async def test_every_documented_route_answers_options(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    assert document["paths"]
    for path, methods in document["paths"].items():
        asked = path.replace("{image_id}", "01a21077-3c90-76ec-9f21-0d711f622fe6")
        answer = await anonymous.options(asked.replace("{", "").replace("}", ""))
        assert answer.status_code == 204, path
        allowed = answer.headers["allow"].split(", ")
        assert {*map(str.upper, methods), "OPTIONS"} <= set(allowed)
        assert answer.content == b""
    assert (await anonymous.options("/nothing")).status_code == 404


async def test_every_documented_route_answers_preflight(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method in methods:
            asked = ORIGIN | {
                "access-control-request-method": method.upper(),
                "access-control-request-headers": "authorization,content-type,x-client-request-id",
            }
            answer = await anonymous.options(path.replace("{", "").replace("}", ""), headers=asked)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert method.upper() in answer.headers["access-control-allow-methods"]
            allowed = answer.headers["access-control-allow-headers"].lower()
            assert all(name in allowed for name in ("authorization", "content-type", "x-client-request-id"))


async def test_preflight_of_page_for_private_network_is_allowed(service: Service) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    async with client_of(service, ServerSettings(cors_origins=("https://ours.example",))) as client:
        ours = await client.options(IMAGES_PATH, headers=asked | {"origin": "https://ours.example"})
        assert (ours.status_code, ours.headers["access-control-allow-private-network"]) == (200, "true")
        assert (await client.options(IMAGES_PATH, headers=asked | ORIGIN)).status_code == 400


async def test_cors_exposes_tracing_and_cost_headers(client: httpx2.AsyncClient) -> None:
    wanted = {
        "x-inference-id", "x-request-id", "x-fal-request-id", "x-client-request-id", "x-aimlapi-credits-used",
        "x-aimlapi-usd-spent", "x-model", "x-ignored-fields", "retry-after", "retry-after-ms", "x-should-retry",
        "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    }  # fmt: skip
    assert wanted <= set(EXPOSED_HEADERS)
    for answer in (
        await client.post(IMAGES_PATH, json=BODY, headers=ORIGIN),
        await client.post(IMAGES_PATH, json={}, headers=ORIGIN),
        await client.post(IMAGES_PATH, json=BODY, headers=ORIGIN | {"authorization": ""}),
        await client.get("/nothing", headers=ORIGIN),
    ):
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert wanted <= exposed
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_cors_allows_only_configured_origins(service: Service, key: str) -> None:
    settings = ServerSettings(cors_origins=("https://ours.example",))
    async with client_of(service, settings, key=key) as client:
        ours = await client.get("/v1/models", headers={"origin": "https://ours.example"})
        assert ours.headers["access-control-allow-origin"] == "https://ours.example"
        theirs = await client.get("/v1/models", headers=ORIGIN)
        assert "access-control-allow-origin" not in theirs.headers
        asked = ORIGIN | {"access-control-request-method": "POST"}
        assert (await client.options(IMAGES_PATH, headers=asked)).status_code == 400
