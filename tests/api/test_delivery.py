"""Responses with `store=false`: the job succeeds, and is charged, once the client has received its images."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from allaprima.api.app import create_app
from allaprima.api.v1.delivery import PART_BYTES
from allaprima.domain.jobs import JobState
from allaprima.errors import GenerationFailed
from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from allaprima.store.job_transitions import NOT_STORED
from tests.fakes import FakeEngine
from tests.waiting import eventually

PATH = "/v1/images/generations"
BODY = {
    "model": "flux/schnell",
    "prompt": "a lighthouse",
    "store": False,
    "response_format": "b64_json",
    "output_format": "png",
    "num_images": 4,
}


class Connection:
    """A client's connection to the application. It closes when `is_closed_by` accepts the messages sent so far."""

    def __init__(self, is_closed_by: Callable[[list[dict[str, Any]]], bool]) -> None:
        self._is_closed_by = is_closed_by
        self.sent: list[dict[str, Any]] = []

    async def post(self, service: Service, key: str, body: dict[str, Any]) -> None:
        """Send a request for images."""
        given = {"authorization": f"Bearer {key}", "content-type": "application/json", "host": "images.test"}
        scope = {
            "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b"",
            "headers": [(name.encode(), text.encode()) for name, text in given.items()], "http_version": "1.1",
            "scheme": "http", "server": ("images.test", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        self._request: dict[str, Any] | None = {"type": "http.request", "body": json.dumps(body).encode()}
        await create_app(ServerSettings(), service)(scope, self._receive, self._send)  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        if self._request is not None:
            message, self._request = self._request, None
            return message
        await eventually(lambda: self._is_closed_by(self.sent))
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        """The body that was sent."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        """Whether the response ended."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False


async def last_job(client: httpx2.AsyncClient) -> dict[str, Any]:
    return (await client.get("/v1/jobs")).json()["data"][0]


async def test_next_request_sees_succeeded_job(client: httpx2.AsyncClient) -> None:
    answer = await client.post(PATH, json=BODY)
    job = await last_job(client)
    assert (job["id"], job["status"]) == (answer.headers["x-inference-id"], "succeeded")


async def test_large_response_arrives_whole(service: Service, key: str) -> None:
    connection = Connection(lambda _sent: False)
    await connection.post(service, key, BODY | {"prompt": "a" * 4000, "size": "1024x1024"})
    assert connection.is_complete
    assert len(connection.body) > 0
    [length] = [text for name, text in connection.sent[0]["headers"] if name == b"content-length"]
    assert len(connection.body) == int(length)
    assert all(len(message.get("body", b"")) <= PART_BYTES for message in connection.sent)
    assert len(json.loads(connection.body)["data"]) == 4


@pytest.mark.parametrize("messages", [1, 2])
async def test_client_that_leaves_during_response_is_not_charged(
    service: Service, key: str, client: httpx2.AsyncClient, messages: int
) -> None:
    connection = Connection(lambda sent: len(sent) >= messages)
    await connection.post(service, key, BODY)
    assert not connection.is_complete
    job = await service.jobs.get((await service.keys.authenticate(key)).account_id, (await last_job(client))["id"])
    done = await service.jobs.wait(job, 60)
    assert (done.state, done.request.prompt) == (JobState.CANCELLED, NOT_STORED)


async def test_client_that_leaves_during_generation_is_not_charged(
    service: Service, key: str, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.hold()
    connection = Connection(lambda _sent: bool(engine.held))
    await connection.post(service, key, BODY)
    assert (await last_job(client))["status"] == "cancelled"


async def test_failed_generation_is_reported(client: httpx2.AsyncClient, engine: FakeEngine, service: Service) -> None:
    engine.failure = GenerationFailed("the model broke")
    answer = await client.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "the model broke")
    assert (await last_job(client))["status"] == "failed"
