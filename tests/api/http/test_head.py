"""HEAD is allowed wherever GET is, with the same status and headers and without a body."""

import asyncio

import httpx2
import pytest

from allaprima.api.http.head import HeadMiddleware
from tests.fakes import FakeEngine


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/health", "/ready", "/openapi.json", "/v1/models", "/v1/models/flux/schnell", "/model/sketch"),
        *("/v1/jobs", "/v1/key", "/v2/billing", "/playground/style.css", "/v1/models/unknown", "/nothing/here"),
    ],
)
async def test_head_has_status_and_headers_of_get(client: httpx2.AsyncClient, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.headers.get(name) == get.headers.get(name), name


async def test_head_of_image_has_its_length(client: httpx2.AsyncClient) -> None:
    body = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
    url = (await client.post("/v1/images/generations", json=body)).json()["images"][0]["url"]
    get, head = await client.get(url), await client.head(url)
    assert head.headers["content-length"] == str(len(get.content))
    assert head.content == b""


async def test_head_of_event_stream_ends_without_events(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    engine.hold()
    job = (await client.post("/v1/jobs", json={"model": "sketch", "prompt": "a boat", "size": "64x64"})).json()
    async with asyncio.timeout(10):
        answer = await client.head(f"/v1/jobs/{job['id']}/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/webhooks/secret/rotate"])
async def test_head_is_refused_where_get_is(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.head(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_refused_method_lists_head_with_get(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/health")).headers["allow"] == "GET, HEAD"


async def test_head_ends_with_headers_of_endless_answer() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await asyncio.Event().wait()

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD"}
    async with asyncio.timeout(10):
        await HeadMiddleware(app)(scope, None, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert scope["method"] == "HEAD"
