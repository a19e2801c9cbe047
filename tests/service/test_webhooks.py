"""Webhooks arrive at least once, signed, at the address that was looked at, and only as long as they are wanted."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from uuid_utils import uuid7

from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import Job, JobOptions
from allaprima.errors import InvalidRequest
from allaprima.service.app import Service
from allaprima.service.webhooks import SCHEDULE_S
from allaprima.store.database import open_database
from allaprima.store.outbox import KEPT_S, Outbox
from fakes import FakeClock, FakeEngine, client_of, open_service
from store.sqlite_file import ask

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=64, height=64)
LOOPBACK = {"allowed_networks": ("127.0.0.0/8",)}
Handler = Callable[[int], tuple[int, dict[str, str]]]


@dataclass
class Receiver:
    """A real server that answers as it is told, and remembers what it was sent."""

    url: str = ""
    #: Number of the try to status and headers.
    answer: Handler = lambda _: (200, {})
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = found.answer(len(found.heard))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    async with open_service(tmp_path, engine, clock, webhooks=LOOPBACK) as opened:
        yield opened


@pytest.fixture
async def owner(service: Service, key: str) -> ApiKey:
    return await service.keys.authenticate(key)


async def submit(service: Service, owner: ApiKey, url: str) -> Job:
    terms = JobOptions(REQUEST.model, webhook_url=url, base_url="http://paint.test")
    job = await service.jobs.submit(owner, REQUEST, terms, str(uuid7()))
    return await service.jobs.wait(job.id, 60)


async def until(receiver: Receiver, count: int) -> None:
    """Wait until it was called so often."""
    async with asyncio.timeout(60):
        while len(receiver.heard) < count:  # noqa: ASYNC110 - it lives in a thread
            await asyncio.sleep(0.01)


async def noted(folder: Path, tries: int = 1) -> tuple[Any, ...]:
    """Wait until that many tries are noted; return the delivery's row."""
    async with asyncio.timeout(60):
        while True:
            [row] = ask(folder, "SELECT attempt, next_at, delivered_at, last_error FROM deliveries")
            if row[0] == tries:
                return row
            await asyncio.sleep(0.01)


async def test_the_end_of_a_job_is_told_signed_and_complete(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    job = await submit(service, owner, receiver.url)
    await until(receiver, 1)
    headers, body = receiver.heard[0]
    secret = await service.webhooks.secret(owner.account_id)
    assert secret.startswith("whsec_")
    assert headers["webhook-id"] == f"msg_{job.id}"
    assert headers["webhook-timestamp"] == str(int(clock.now))
    assert headers["host"] == receiver.url.split("/")[2]
    told = json.loads(body)
    assert (told["type"], told["timestamp"]) == ("job.succeeded", "2026-01-15T08:00:00.000Z")
    assert (told["data"]["id"], told["data"]["status"]) == (job.id, "succeeded")
    async with client_of(service) as client:
        assert (await client.get(told["data"]["images"][0]["url"])).status_code == 200
    expected = Webhook(secret).sign(headers["webhook-id"], _at(clock), body.decode())
    assert headers["webhook-signature"].split() == [expected]
    assert len(body) < 20_000
    assert await noted(tmp_path) == (1, None, clock.now, None)


def _at(clock: FakeClock) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(clock.now), UTC)


async def test_a_failing_receiver_is_tried_again_on_the_schedule_with_the_same_id(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda number: (500, {}) if number < 4 else (204, {})
    await submit(service, owner, receiver.url)
    for number in range(1, 4):
        await until(receiver, number)
        _, next_at, _, error = await noted(tmp_path, number)
        assert (next_at, error) == (clock.now + SCHEDULE_S[number - 1], "answered 500")
        clock.now = next_at
        service.webhooks.wake()
    await until(receiver, 4)
    assert (await noted(tmp_path, 4))[1] is None
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert len({body for _, body in receiver.heard}) == 1


async def test_a_receiver_that_never_answers_well_is_given_up(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda _: (500, {})
    await submit(service, owner, receiver.url)
    tries = len(SCHEDULE_S) + 1
    for number in range(1, tries + 1):
        await until(receiver, number)
        await noted(tmp_path, number)
        clock.now += 100_000
        service.webhooks.wake()
    assert await noted(tmp_path, tries) == (tries, None, None, "answered 500")


async def test_retry_after_is_obeyed(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda _: (503, {"retry-after": "4000"})
    await submit(service, owner, receiver.url)
    assert (await noted(tmp_path))[1] == clock.now + 4000


async def test_410_ends_it_for_good(service: Service, owner: ApiKey, receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda _: (410, {})
    await submit(service, owner, receiver.url)
    assert (await noted(tmp_path))[3] == "answered 410"
    [endpoint] = await service.webhooks.endpoints(owner.account_id)
    assert endpoint.disabled_at is not None
    with pytest.raises(InvalidRequest, match="disabled"):
        await submit(service, owner, receiver.url)
    await service.webhooks.forget(owner.account_id, endpoint.id)
    receiver.answer = lambda _: (200, {})
    await submit(service, owner, receiver.url)
    await until(receiver, 2)


async def test_a_redirect_is_not_followed(service: Service, owner: ApiKey, receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda _: (302, {"location": receiver.url})
    await submit(service, owner, receiver.url)
    assert (await noted(tmp_path))[3] == "answered 302"
    assert len(receiver.heard) == 1


async def test_what_was_not_delivered_before_a_stop_is_delivered_after_it(
    tmp_path: Path, receiver: Receiver, clock: FakeClock
) -> None:
    receiver.answer = lambda number: (500, {}) if number == 1 else (200, {})
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK) as service:
        owner = (await service.keys.all())[0]
        await submit(service, owner, receiver.url)
        await noted(tmp_path)
    clock.now += 10
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK):
        await until(receiver, 2)
        await noted(tmp_path, 2)
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock
) -> None:
    old = await service.webhooks.secret(owner.account_id)
    new = await service.webhooks.rotate(owner.account_id)
    assert old != new == await service.webhooks.secret(owner.account_id)
    await submit(service, owner, receiver.url)
    await until(receiver, 1)
    headers, body = receiver.heard[0]
    signed = [Webhook(secret).sign(headers["webhook-id"], _at(clock), body.decode()) for secret in (new, old)]
    assert headers["webhook-signature"].split() == signed
    clock.now += 86_401
    await submit(service, owner, receiver.url)
    await until(receiver, 2)
    assert len(receiver.heard[1][0]["webhook-signature"].split()) == 1


async def test_a_delivery_that_is_over_is_forgotten_after_a_month(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, receiver: Receiver
) -> None:
    async with open_service(tmp_path, engine, clock, webhooks=LOOPBACK) as service:
        await submit(service, await service.keys.authenticate(service.first_key or ""), receiver.url)
        await noted(tmp_path)
    for seconds, left in ((KEPT_S, 1), (1.0, 0)):
        clock.now += seconds
        database = await open_database(tmp_path)
        await Outbox(database).forget_old(clock.now)
        await database.close()
        assert len(ask(tmp_path, "SELECT id FROM deliveries")) == left


async def test_without_leave_no_webhook_goes_inside(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, receiver: Receiver
) -> None:
    port = receiver.url.split(":")[2].split("/")[0]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async with open_service(tmp_path, engine, clock, resolve=rebinding) as service:
        owner = (await service.keys.all())[0]
        with pytest.raises(InvalidRequest, match="port 80 or 443"):
            await submit(service, owner, f"http://hook.example:{port}/")
        await submit(service, owner, "http://hook.example/")
        row = await noted(tmp_path)
    assert "127.0.0.1, which is not on the public internet" in row[3]
    assert receiver.heard == []


async def test_endpoints_and_secrets_over_http(service: Service, owner: ApiKey, key: str, receiver: Receiver) -> None:
    await submit(service, owner, receiver.url)
    async with client_of(service, key=key) as client:
        [endpoint] = (await client.get("/v1/webhooks")).json()["data"]
        assert (endpoint["url"], endpoint["disabled_at"]) == (receiver.url, None)
        secret = (await client.get("/v1/webhooks/secret")).json()["secret"]
        assert (await client.post("/v1/webhooks/secret/rotate")).json()["secret"] != secret
        path = f"/v1/webhooks/{endpoint['id']}"
        assert (await client.delete(path)).json() == {"id": endpoint["id"], "object": "webhook", "deleted": True}
        assert (await client.delete(path)).status_code == 404
