"""Webhooks: signed, delivered at least once, to the checked address, until the endpoint is disabled."""

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

from allaprima.domain.accounts import ApiKey, KeySpec
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, JobState
from allaprima.errors import EndpointNotFound, InvalidRequest, OutOfCredits
from allaprima.service.app import Service
from allaprima.service.webhooks import POLL_INTERVAL_S, SCHEDULE_S
from allaprima.store.outbox import RETENTION_S
from tests.fakes import FakeClock, FakeEngine, client_of, open_service
from tests.service.jobs.submitting import finish, rows, write
from tests.service.jobs.submitting import submit as submit_job
from tests.waiting import eventually

LOOPBACK = {"allowed_networks": ("127.0.0.0/8",)}
Handler = Callable[[int], tuple[int, dict[str, str]]]


@dataclass
class Receiver:
    """A real HTTP server that answers as configured and records what it receives."""

    url: str = ""
    #: Maps the number of an attempt to status and headers.
    answer: Handler = lambda _: (200, {})
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, headers = found.answer(len(found.received))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

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


async def submit(service: Service, owner: ApiKey, url: str) -> Job:
    """Submit a job with a webhook, and wait for its end."""
    job = await submit_job(service, owner, webhook_url=url, base_url="http://images.test")
    return await finish(service, job)


async def received(receiver: Receiver, count: int) -> None:
    """Wait until the receiver has `count` webhooks."""
    await eventually(lambda: len(receiver.received) >= count)


async def recorded(folder: Path, attempts: int = 1) -> tuple[Any, ...]:
    """Wait until that many attempts are recorded; return attempt, next_at, delivered_at and last_error."""
    found: list[tuple[Any, ...]] = []

    def is_recorded() -> bool:
        found[:] = rows(folder, "SELECT attempt, next_at, delivered_at, last_error FROM webhook_deliveries")
        return found[0][0] == attempts

    await eventually(is_recorded)
    return found[0]


async def test_webhook_is_signed_and_complete(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    job = await submit(service, owner, receiver.url)
    await received(receiver, 1)
    headers, body = receiver.received[0]
    secret = await service.webhooks.secret(owner.account_id)
    assert secret.startswith("whsec_")
    assert headers["webhook-id"] == f"msg_{job.id}"
    assert headers["webhook-timestamp"] == str(int(clock.now))
    assert headers["host"] == receiver.url.split("/")[2]
    sent = json.loads(body)
    assert (sent["type"], sent["timestamp"]) == ("job.succeeded", "2026-01-15T08:00:00.000Z")
    assert (sent["data"]["id"], sent["data"]["status"]) == (job.id, "succeeded")
    async with client_of(service) as client:
        assert (await client.get(sent["data"]["images"][0]["url"])).status_code == 200
    expected = Webhook(secret).sign(headers["webhook-id"], _at(clock), body.decode())
    assert headers["webhook-signature"].split() == [expected]
    assert len(body) < 20_000
    assert await recorded(tmp_path) == (1, None, clock.now, None)


def _at(clock: FakeClock) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(clock.now), UTC)


async def test_failed_delivery_is_retried_on_schedule(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda number: (500, {}) if number < 4 else (204, {})
    await submit(service, owner, receiver.url)
    for number in range(1, 4):
        await received(receiver, number)
        _, next_at, _, error = await recorded(tmp_path, number)
        assert (next_at, error) == (clock.now + SCHEDULE_S[number - 1], "status 500")
        clock.now = next_at
        service.webhooks.wake()
    await received(receiver, 4)
    assert (await recorded(tmp_path, 4))[1] is None
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1


async def test_delivery_is_given_up_after_schedule(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda _: (500, {})
    await submit(service, owner, receiver.url)
    attempts = len(SCHEDULE_S) + 1
    for number in range(1, attempts + 1):
        await received(receiver, number)
        await recorded(tmp_path, number)
        clock.now += 100_000
        service.webhooks.wake()
    assert await recorded(tmp_path, attempts) == (attempts, None, None, "status 500")


async def test_retry_after_is_obeyed(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    receiver.answer = lambda _: (503, {"retry-after": "4000"})
    await submit(service, owner, receiver.url)
    assert (await recorded(tmp_path))[1] == clock.now + 4000


async def test_endpoint_answering_410_is_disabled(
    service: Service, owner: ApiKey, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answer = lambda _: (410, {})
    await submit(service, owner, receiver.url)
    assert (await recorded(tmp_path))[3] == "it returned 410 (Gone)"
    [endpoint] = await service.webhooks.endpoints(owner.account_id)
    assert endpoint.disabled_at is not None
    assert endpoint.disabled_reason == "it returned 410 (Gone)"
    assert b'allaprima_webhook_tries_total{outcome="disabled"} 1.0' in service.metrics.text(0)
    refusal = rf"is disabled: it returned 410 \(Gone\); DELETE /v1/webhooks/{endpoint.id} enables it"
    with pytest.raises(InvalidRequest, match=refusal):
        await submit(service, owner, receiver.url)
    await service.webhooks.delete_endpoint(owner.account_id, endpoint.id)
    receiver.answer = lambda _: (200, {})
    await submit(service, owner, receiver.url)
    await received(receiver, 2)


async def test_redirect_is_not_followed(service: Service, owner: ApiKey, receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer = lambda _: (302, {"location": receiver.url})
    await submit(service, owner, receiver.url)
    assert (await recorded(tmp_path))[3] == "status 302"
    assert len(receiver.received) == 1


async def test_undelivered_webhook_is_delivered_after_restart(
    tmp_path: Path, receiver: Receiver, clock: FakeClock
) -> None:
    receiver.answer = lambda number: (500, {}) if number == 1 else (200, {})
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK) as service:
        owner = (await service.keys.all())[0]
        await submit(service, owner, receiver.url)
        await recorded(tmp_path)
    clock.now += 10
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK):
        await received(receiver, 2)
        await recorded(tmp_path, 2)
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1


async def test_delivery_that_a_stop_interrupts_is_sent_at_the_next_start(
    tmp_path: Path, receiver: Receiver, clock: FakeClock
) -> None:
    stopped = threading.Event()

    def hang(number: int) -> tuple[int, dict[str, str]]:
        if number == 1:
            stopped.wait()
        return 200, {}

    receiver.answer = hang
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK) as service:
        await submit(service, (await service.keys.all())[0], receiver.url)
        await received(receiver, 1)
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK):
        await received(receiver, 2)
        await recorded(tmp_path)
    stopped.set()


async def test_both_secrets_sign_for_one_day_after_rotation(
    service: Service, owner: ApiKey, receiver: Receiver, clock: FakeClock
) -> None:
    old = await service.webhooks.secret(owner.account_id)
    new = await service.webhooks.rotate_secret(owner.account_id)
    assert old != new == await service.webhooks.secret(owner.account_id)
    await submit(service, owner, receiver.url)
    await received(receiver, 1)
    headers, body = receiver.received[0]
    signed = [Webhook(secret).sign(headers["webhook-id"], _at(clock), body.decode()) for secret in (new, old)]
    assert headers["webhook-signature"].split() == signed
    clock.now += 86_401
    await submit(service, owner, receiver.url)
    await received(receiver, 2)
    assert len(receiver.received[1][0]["webhook-signature"].split()) == 1


async def test_finished_delivery_is_removed_after_one_month(
    tmp_path: Path, clock: FakeClock, receiver: Receiver
) -> None:
    async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK) as service:
        await submit(service, await service.keys.authenticate(service.first_key or ""), receiver.url)
        await recorded(tmp_path)
    for passed_s, left in ((RETENTION_S, 1), (1.0, 0)):
        clock.now += passed_s
        async with open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK):
            await eventually(lambda left=left: len(rows(tmp_path, "SELECT id FROM webhook_deliveries")) == left)


async def test_private_networks_are_called_only_if_allowed(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    port = receiver.url.split(":")[2].split("/")[0]

    async def rebinding(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    setting = "the operator can allow a private network with ALLAPRIMA_WEBHOOKS__ALLOWED_NETWORKS"
    async with open_service(tmp_path, engine, clock, resolve=rebinding) as service:
        owner = (await service.keys.all())[0]
        with pytest.raises(InvalidRequest, match=f"port 80 or 443, because private networks are closed; {setting}"):
            await submit(service, owner, f"http://hook.example:{port}/")
        await submit(service, owner, "http://hook.example/")
        row = await recorded(tmp_path)
        [endpoint] = await service.webhooks.endpoints(owner.account_id)
    assert row[3] == f"the URL resolves to 127.0.0.1, which is not a public address; {setting}"
    assert endpoint.disabled_reason == row[3]
    assert "disabled the webhook endpoint" in caplog.text
    assert setting in caplog.text
    assert "hook.example" not in caplog.text
    assert receiver.received == []


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3/",
        "https://192.168.0.9/hook",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.1.1/",
    ],
)
async def test_private_address_is_refused_at_submission(service: Service, url: str, tmp_path: Path) -> None:
    owner = (await service.keys.all())[0]
    with pytest.raises(InvalidRequest, match=r"not a public address; .*ALLAPRIMA_WEBHOOKS__ALLOWED_NETWORKS"):
        await submit_job(service, owner, webhook_url=url)
    assert rows(tmp_path, "SELECT * FROM webhook_endpoints") == []


async def test_refused_request_leaves_no_endpoint_and_no_secret(tmp_path: Path, clock: FakeClock) -> None:
    prices = {"prices": {"allaprima/sketch": {"megapixel": 1.0}}}
    async with open_service(tmp_path, FakeEngine(), clock, billing=prices) as service:
        with pytest.raises(OutOfCredits):
            await submit_job(service, webhook_url="https://hooks.example/a")
    assert rows(tmp_path, "SELECT * FROM webhook_endpoints") == []
    assert rows(tmp_path, "SELECT webhook_secret FROM accounts") == [(None,)]


async def test_hanging_receivers_delay_no_other_account(service: Service, receiver: Receiver) -> None:
    hanging, port = asyncio.Event(), 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hanging.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        owner = (await service.keys.all())[0]
        for number in range(40):
            await submit(service, owner, f"http://127.0.0.1:{port}/{number}")
        other = await service.operator.accounts.create("other")
        stranger, _ = await service.keys.create(KeySpec("stranger"), other.id)
        await submit(service, stranger, receiver.url)
        await received(receiver, 1)
        hanging.set()


async def test_endpoints_and_secret_are_managed_over_http(
    service: Service, owner: ApiKey, key: str, receiver: Receiver
) -> None:
    await submit(service, owner, receiver.url)
    async with client_of(service, key=key) as client:
        [endpoint] = (await client.get("/v1/webhooks")).json()["data"]
        assert (endpoint["url"], endpoint["disabled_at"]) == (receiver.url, None)
        secret = (await client.get("/v1/webhooks/secret")).json()["secret"]
        assert (await client.post("/v1/webhooks/secret/rotate")).json()["secret"] != secret
        path = f"/v1/webhooks/{endpoint['id']}"
        assert (await client.delete(path)).json() == {"id": endpoint["id"], "object": "webhook", "deleted": True}
        assert (await client.delete(path)).status_code == 404


async def test_every_end_of_job_is_sent_at_once(
    service: Service, owner: ApiKey, engine: FakeEngine, receiver: Receiver, clock: FakeClock
) -> None:
    engine.hold()
    held = [await submit_job(service, owner) for _ in range(2)]
    cancelled = await submit_job(service, owner, webhook_url=receiver.url)
    late = await submit_job(service, owner, webhook_url=receiver.url, start_within_s=30)
    await engine.until_held(2)
    await service.cancellation.cancel(owner.account_id, cancelled.id)
    await received(receiver, 1)
    clock.now += 31
    await received(receiver, 2)
    assert [json.loads(body)["type"] for _, body in receiver.received] == ["job.cancelled", "job.failed"]
    assert (await finish(service, late)).state is JobState.FAILED
    engine.release()
    await finish(service, held[1])


async def test_end_of_job_at_recovery_is_sent_at_once(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, receiver: Receiver
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, webhooks=LOOPBACK) as service:
        job = await submit_job(service, webhook_url=receiver.url)
        await engine.until_held()
    write(tmp_path, "UPDATE jobs SET state = 'running', cancel_asked_at = created_at")
    async with asyncio.timeout(POLL_INTERVAL_S / 2), open_service(tmp_path, FakeEngine(), clock, webhooks=LOOPBACK):
        await received(receiver, 1)
    assert json.loads(receiver.received[0][1])["data"]["id"] == job.id


async def test_secret_is_rotated_once_for_equal_requests(service: Service, owner: ApiKey) -> None:
    before, claim = await service.webhooks.secret(owner.account_id), IdempotencyClaim("key", "fingerprint")
    made = [await service.webhooks.rotate_secret(owner.account_id, claim) for _ in range(2)]
    assert before != made[0] == made[1]


async def test_endpoint_of_other_account_is_not_found(service: Service, owner: ApiKey, receiver: Receiver) -> None:
    await submit(service, owner, receiver.url)
    [endpoint] = await service.webhooks.endpoints(owner.account_id)
    assert await service.webhooks.endpoints("stranger") == []
    with pytest.raises(EndpointNotFound):
        await service.webhooks.delete_endpoint("stranger", endpoint.id)
