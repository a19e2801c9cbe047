"""Idempotency-Key: equal requests are executed once, and replays receive the same answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.domain.accounts import KeySpec
from allaprima.service.app import Service
from tests.databases import count, dump
from tests.fakes import FakeClock, FakeEngine, client_of, ended

IMAGES, JOBS = "/v1/images/generations", "/v1/jobs"
BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
KEY = {"Idempotency-Key": "order 66/a"}


async def test_replayed_request_is_generated_once(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    first = await client.post(IMAGES, json=BODY, headers=KEY)
    clock.now += 3600
    again = await client.post(IMAGES, json=BODY, headers=KEY)
    assert (first.status_code, again.status_code) == (200, 200)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert len(engine.requests) == 1


async def test_member_order_and_path_form_do_not_change_request(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    await client.post(IMAGES, json=BODY, headers=KEY)
    turned = dict(reversed(list(BODY.items())))
    answer = await client.post("/images/generations/", json=turned, headers=KEY)
    assert answer.headers["idempotent-replayed"] == "true"
    assert len(engine.requests) == 1


@pytest.mark.parametrize(("path", "change"), [(IMAGES, {"seed": 1}), (JOBS, {})])
async def test_idempotency_key_of_other_request_answers_422(
    client: httpx2.AsyncClient, engine: FakeEngine, path: str, change: dict[str, Any]
) -> None:
    await client.post(IMAGES, json=BODY, headers=KEY)
    answer = await client.post(path, json=BODY | change, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len(engine.requests) == 1


async def test_replay_of_running_request_answers_409_with_retry_after(
    client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.hold()
    first = asyncio.create_task(client.post(IMAGES, json=BODY, headers=KEY))
    await engine.until_held()
    again = await client.post(IMAGES, json=BODY, headers=KEY)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_key_in_flight")
    assert again.headers["x-should-retry"] == "true"
    assert int(again.headers["retry-after"]) >= 1
    engine.release()
    assert (await first).status_code == 200
    assert (await client.post(IMAGES, json=BODY, headers=KEY)).json() == (await first).json()


async def test_replayed_submission_answers_current_job(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.hold()
    first = await client.post(JOBS, json=BODY, headers=KEY)
    again = await client.post(JOBS, json=BODY, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    engine.release()
    await ended(service, first.json()["id"])
    assert (await client.post(JOBS, json=BODY, headers=KEY)).json()["status"] == "succeeded"


async def test_failed_request_is_replayed(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    from allaprima.errors import GenerationFailed

    engine.failure = GenerationFailed("no colours")
    first = await client.post(IMAGES, json=BODY, headers=KEY)
    engine.failure = None
    again = await client.post(IMAGES, json=BODY, headers=KEY)
    assert (first.status_code, again.status_code) == (500, 500)
    assert len(engine.requests) == 1


async def test_refused_request_leaves_no_idempotency_record(
    client: httpx2.AsyncClient, engine: FakeEngine, tmp_path: Path
) -> None:
    assert (await client.post(IMAGES, json=BODY | {"steps": 99}, headers=KEY)).status_code == 400
    assert count(tmp_path, "idempotency_records") == 0
    assert (await client.post(IMAGES, json=BODY, headers=KEY)).status_code == 200


async def test_idempotency_key_expires_after_one_day(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    await client.post(JOBS, json=BODY, headers=KEY)
    clock.now += 86_399
    await client.post(JOBS, json=BODY, headers=KEY)
    assert len((await client.get(JOBS)).json()["data"]) == 1
    clock.now += 1
    await client.post(JOBS, json=BODY, headers=KEY)
    assert len((await client.get(JOBS)).json()["data"]) == 2


async def test_idempotency_keys_are_separate_for_each_account(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    account = await service.operator.accounts.create("stranger")
    _, key = await service.keys.create(KeySpec(), account.id)
    await client.post(IMAGES, json=BODY, headers=KEY)
    async with client_of(service, key=key) as other_client:
        answer = await other_client.post(IMAGES, json=BODY | {"seed": 3}, headers=KEY)
    assert answer.status_code == 200
    assert len(engine.requests) == 2


@pytest.mark.parametrize("value", ["", "x" * 256, "caf\u00e9".encode("latin-1"), b"a\x7f"])
async def test_invalid_idempotency_key_is_refused(client: httpx2.AsyncClient, value: str | bytes) -> None:
    answer = await client.post(IMAGES, json=BODY, headers={"Idempotency-Key": value})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_concurrent_equal_requests_create_one_job(
    client: httpx2.AsyncClient, engine: FakeEngine, tmp_path: Path
) -> None:
    keys, racers = 5, 20
    answers = await asyncio.gather(
        *(
            client.post(JOBS, json=BODY, headers={"Idempotency-Key": f"key {number % keys}"})
            for number in range(keys * racers)
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == keys
    assert count(tmp_path, "jobs") == keys


@pytest.fixture
async def manager(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a management key of the first account."""
    _, management = await service.keys.create(KeySpec(is_management=True))
    async with client_of(service, key=management) as opened:
        yield opened


async def test_replayed_key_creation_answers_without_secret(
    service: Service, manager: httpx2.AsyncClient, tmp_path: Path
) -> None:
    first = await manager.post("/v1/keys", json={"name": "ci"}, headers=KEY)
    again = await manager.post("/v1/keys", json={"name": "ci"}, headers=KEY)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["data"] == first.json()["data"] | {"key": None}
    key = first.json()["data"]["key"]
    assert (await service.keys.authenticate(key)).name == "ci"
    assert key not in dump(tmp_path)


async def test_idempotency_key_of_key_creation_belongs_to_one_body(manager: httpx2.AsyncClient) -> None:
    limit = {"retention": "day", "threshold": 1}
    first = (await manager.post("/v1/keys", json={"name": "ci", "limit": limit}, headers=KEY)).json()["data"]
    reordered = {"limit": {"threshold": 1, "retention": "day"}, "name": "ci"}
    assert (await manager.post("/v1/keys", json=reordered, headers=KEY)).status_code == 200
    for body in ({"name": "cd", "limit": limit}, {"name": "ci"}, {"name": "ci", "limit": limit, "scopes": None}):
        assert (await manager.post("/v1/keys", json=body, headers=KEY)).status_code == 422
    other = (await manager.post("/v1/keys", json={"name": "ci", "limit": limit})).json()["data"]
    assert other["key"] != first["key"]


async def test_replayed_creation_of_deleted_key_answers_404(manager: httpx2.AsyncClient) -> None:
    created = (await manager.post("/v1/keys", headers=KEY)).json()["data"]
    await manager.delete(f"/v1/keys/{created['prefix']}")
    assert (await manager.post("/v1/keys", headers=KEY)).status_code == 404


async def test_replayed_rotation_answers_without_secret(service: Service, manager: httpx2.AsyncClient) -> None:
    owner = await service.keys.authenticate(service.first_key or "")
    path = f"/v1/keys/{owner.prefix}/rotate"
    first = (await manager.post(path, headers=KEY)).json()["data"]
    again = await manager.post(path, headers=KEY)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["data"] == first | {"key": None}
    assert (await manager.post(f"/v1/keys/{first['prefix']}/rotate", headers=KEY)).status_code == 422


async def test_concurrent_equal_rotations_create_one_key(service: Service, manager: httpx2.AsyncClient) -> None:
    owner = await service.keys.authenticate(service.first_key or "")
    path = f"/v1/keys/{owner.prefix}/rotate"
    answers = await asyncio.gather(*(manager.post(path, headers=KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    [key] = {answer.json()["data"]["key"] for answer in answers} - {None}
    assert (await service.keys.authenticate(key)).id == owner.id


async def test_replayed_webhook_secret_rotation_rotates_once(service: Service, client: httpx2.AsyncClient) -> None:
    before = (await client.get("/v1/webhooks/secret")).json()["secret"]
    first = (await client.post("/v1/webhooks/secret/rotate", headers=KEY)).json()["secret"]
    again = (await client.post("/v1/webhooks/secret/rotate", headers=KEY)).json()["secret"]
    assert before != first == again
