"""API keys over HTTP: the platform's bodies, exact spend limits, and isolation of accounts."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.domain.accounts import KeySpec
from allaprima.service.app import Service
from tests.databases import ask
from tests.fakes import NOW, FakeClock, FakeEngine, client_of, open_service

IMAGES = "/v1/images/generations"
BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a boat", "size": "512x512"}
#: 512x512 costs 262144 * 0.003 / 1e6 USD: 1572.864 credits, rounded.
PRICES = {"prices": {"flux/schnell": {"megapixel": 0.003}}}
CREDITS = 1573


@pytest.fixture
async def manager(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a management key of the first account."""
    _, key = await service.keys.create(KeySpec(is_management=True))
    async with client_of(service, key=key) as opened:
        yield opened


async def test_created_key_has_platform_members(service: Service, manager: httpx2.AsyncClient) -> None:
    body = {"name": "ci", "limit": {"retention": "week", "threshold": 25}, "scopes": ["model:image"]}
    answer = await manager.post("/v1/keys", json=body)
    data = answer.json()["data"]
    assert answer.status_code == 200
    key = data.pop("key")
    assert data == {
        "name": "ci",
        "disabled": False,
        "prefix": key[3:11],
        "scopes": ["model:image"],
        "limit": {"retention": "week", "threshold": 25},
        "created_at": "2026-01-15T08:00:00.000Z",
        "updated_at": "2026-01-15T08:00:00.000Z",
        "monthly_usage": 0,
        "management": False,
        "requests_per_minute": None,
        "safety_threshold": None,
    }
    async with client_of(service, key=key) as client:
        assert (await client.get("/v1/key")).json() == {"data": data}
        assert (await client.post(IMAGES, json=BODY)).status_code == 200


async def test_keys_are_listed_oldest_first_without_secrets(manager: httpx2.AsyncClient) -> None:
    for name in ("a", "b"):
        await manager.post("/v1/keys", json={"name": name})
    rows = (await manager.get("/v1/keys")).json()["data"]
    assert [row["name"] for row in rows] == ["first", None, "a", "b"]
    assert not any("key" in row for row in rows)


async def test_patch_changes_only_given_members(
    service: Service, manager: httpx2.AsyncClient, clock: FakeClock
) -> None:
    made = (await manager.post("/v1/keys", json={"name": "a"})).json()["data"]
    clock.now += 5
    path = f"/v1/keys/{made['prefix']}"
    changed = (await manager.patch(path, json={"disabled": True, "requests_per_minute": 3})).json()["data"]
    assert (changed["name"], changed["disabled"], changed["requests_per_minute"]) == ("a", True, 3)
    assert changed["updated_at"] > changed["created_at"]
    async with client_of(service, key=made["key"]) as client:
        assert (await client.post(IMAGES, json=BODY)).status_code == 401
        back = (await manager.put(path, json={"disabled": False, "name": None, "limit": None})).json()["data"]
        assert (back["name"], back["disabled"], back["requests_per_minute"]) == (None, False, 3)
        answers = [await client.post(IMAGES, json=BODY) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"


async def test_rotation_keeps_settings_and_invalidates_old_key(service: Service, manager: httpx2.AsyncClient) -> None:
    made = (await manager.post("/v1/keys", json={"name": "a", "requests_per_minute": 5})).json()["data"]
    new = (await manager.post(f"/v1/keys/{made['prefix']}/rotate")).json()["data"]
    assert (new["name"], new["requests_per_minute"]) == ("a", 5)
    async with client_of(service, key=made["key"]) as old, client_of(service, key=new["key"]) as fresh:
        assert (await old.get("/v1/key")).status_code == 401
        assert (await fresh.get("/v1/key")).status_code == 200


async def test_deleted_key_is_invalid(service: Service, manager: httpx2.AsyncClient) -> None:
    made = (await manager.post("/v1/keys")).json()["data"]
    path = f"/v1/keys/{made['prefix']}"
    assert (await manager.delete(path)).json() == {"data": {"prefix": made["prefix"], "deleted": True}}
    async with client_of(service, key=made["key"]) as client:
        assert (await client.get("/v1/key")).status_code == 401
    assert (await manager.delete(path)).status_code == 404
    assert (await manager.patch(path, json={})).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": 7}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"disabled": "no"}, "disabled"),
        ({"limit": 5}, "limit"),
        ({"limit": {"retention": "day"}}, "limit.threshold"),
        ({"limit": {"retention": "year", "threshold": 1}}, "limit.retention"),
        ({"limit": {"retention": "day", "threshold": -1}}, "limit.threshold"),
        ({"limit": {"retention": "day", "threshold": "1"}}, "limit.threshold"),
        ({"scopes": ["all"]}, "scopes.0"),
        ({"limit": {"retention": "day", "threshold": True}}, "limit.threshold"),
        ({"requests_per_minute": "5"}, "requests_per_minute"),
        ({"scopes": "model:image"}, "scopes"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"safety_threshold": 2}, "safety_threshold"),
        ({"management": True}, "management"),
    ],
)
async def test_invalid_member_of_key_is_refused_by_name(manager: httpx2.AsyncClient, body: Any, field: str) -> None:
    answer = await manager.post("/v1/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_ordinary_and_management_keys_have_separate_rights(
    client: httpx2.AsyncClient, manager: httpx2.AsyncClient
) -> None:
    calls = [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("PATCH", "/v1/keys/x"), ("DELETE", "/v1/keys/x")]
    for method, path in calls:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "management_key_required")
    answer = await manager.post(IMAGES, json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_missing")
    assert (await manager.get("/v1/key")).json()["error"]["code"] == "ordinary_key_required"


async def test_key_without_image_scope_cannot_generate(service: Service, manager: httpx2.AsyncClient) -> None:
    made = (await manager.post("/v1/keys", json={"scopes": ["model:chat"]})).json()["data"]
    async with client_of(service, key=made["key"]) as client:
        for path in (IMAGES, "/v1/jobs"):
            answer = await client.post(path, json=BODY)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_missing")


async def test_key_without_image_scope_cannot_read_jobs_or_images(
    service: Service, client: httpx2.AsyncClient, manager: httpx2.AsyncClient
) -> None:
    answer = (await client.post(IMAGES, json=BODY | {"group_id": "g"})).json()
    job = (await client.get("/v1/jobs")).json()["data"][0]["id"]
    image = answer["images"][0]["id"]
    made = (await manager.post("/v1/keys", json={"scopes": ["model:chat"]})).json()["data"]
    calls = [
        ("GET", "/v1/jobs"),
        ("GET", f"/v1/jobs/{job}"),
        ("GET", f"/v1/jobs/{job}/events"),
        ("POST", f"/v1/jobs/{job}/cancel"),
        ("DELETE", f"/v1/jobs/{job}"),
        ("POST", "/v1/groups/g/cancel"),
        ("POST", f"/v1/images/{image}/sign"),
        ("DELETE", f"/v1/images/{image}"),
    ]
    async with client_of(service, key=made["key"]) as without:
        for method, path in calls:
            for caller in (without, manager):
                refused = await caller.request(method, path)
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_missing"), path
                assert "a boat" not in refused.text
    assert (await client.get(f"/v1/jobs/{job}")).json()["result"]["images"][0]["id"] == image


async def test_keys_of_other_account_are_not_found(service: Service, manager: httpx2.AsyncClient) -> None:
    account = await service.operator.accounts.create("stranger")
    row, _ = await service.keys.create(KeySpec(), account.id)
    assert row.prefix not in [key["prefix"] for key in (await manager.get("/v1/keys")).json()["data"]]
    for method in ("PATCH", "PUT", "DELETE"):
        assert (await manager.request(method, f"/v1/keys/{row.prefix}", json={})).status_code == 404
    assert (await manager.post(f"/v1/keys/{row.prefix}/rotate")).status_code == 404


# Charges ------------------------------------------------------------------------------------------------------------


async def test_generation_without_prices_needs_no_credits(client: httpx2.AsyncClient) -> None:
    answer = await client.post(IMAGES, json=BODY)
    assert answer.headers["x-aimlapi-credits-used"] == "0"
    assert answer.headers["x-aimlapi-usd-spent"] == "0.000000000"


async def test_charge_is_in_response_and_ledger(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    engine.flagged = frozenset({1})
    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, 10_000)
        async with client_of(service, key=service.first_key) as client:
            answer = await client.post(IMAGES, json=BODY | {"num_images": 3})
            balance = (await client.get("/v1/billing/balance")).json()["balance"]
    # One of the three images is withheld and not charged.
    assert answer.json()["meta"]["usage"] == {"credits_used": 2 * CREDITS, "usd_spent": 2 * CREDITS / 2_000_000}
    assert answer.headers["x-aimlapi-credits-used"] == str(2 * CREDITS)
    assert re.fullmatch(r"0\.\d{9}", answer.headers["x-aimlapi-usd-spent"])
    assert balance == 10_000 - 2 * CREDITS
    assert ask(tmp_path, "SELECT balance, held FROM accounts") == [(balance, 0)]
    [row] = ask(tmp_path, "SELECT reference_id, credits, images FROM ledger WHERE type = 'MODEL_USAGE'")
    assert row == (answer.headers["x-inference-id"], 2 * CREDITS, 2)


async def test_insufficient_credits_answer_403_without_charge(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, CREDITS - 1)
        async with client_of(service, key=service.first_key) as client:
            answer = await client.post(IMAGES, json=BODY)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "out_of_credits")
            assert answer.json()["message"].startswith("You've run out of credits.")
            await service.operator.accounts.credit(owner.account_id, 1)
            assert (await client.post(IMAGES, json=BODY)).status_code == 200
            assert (await client.post(IMAGES, json=BODY)).status_code == 403
    assert len(engine.requests) == 1


async def test_concurrent_requests_never_overdraw_account(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, CREDITS)
        async with client_of(service, key=service.first_key) as client:
            answers = await asyncio.gather(*(client.post(IMAGES, json=BODY) for _ in range(64)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [403] * 63
    assert ask(tmp_path, "SELECT balance, held FROM accounts") == [(0, 0)]
    assert ask(tmp_path, "SELECT sum(credits) FROM usage") == [(CREDITS,)]


async def test_failed_job_releases_its_hold(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    from allaprima.errors import GenerationFailed

    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, CREDITS)
        async with client_of(service, key=service.first_key) as client:
            engine.failure = GenerationFailed("no")
            assert (await client.post(IMAGES, json=BODY)).status_code == 500
            engine.failure, engine.flagged = None, frozenset({0})
            flagged = await client.post(IMAGES, json=BODY)
            assert flagged.json()["meta"]["usage"]["credits_used"] == 0
            engine.flagged = frozenset()
            assert (await client.post(IMAGES, json=BODY)).status_code == 200
    assert ask(tmp_path, "SELECT balance, held FROM accounts") == [(0, 0)]


@pytest.mark.parametrize(("retention", "later"), [("day", 86_400), ("week", 7 * 86_400), ("month", 31 * 86_400)])
async def test_spend_limit_resets_at_end_of_period(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, retention: str, later: float
) -> None:
    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, 100 * CREDITS)
        _, management = await service.keys.create(KeySpec(is_management=True), owner.account_id)
        limit = {"retention": retention, "threshold": 2 * CREDITS / 2_000_000}
        async with client_of(service, key=management) as manager:
            made = (await manager.post("/v1/keys", json={"limit": limit})).json()["data"]
        async with client_of(service, key=made["key"]) as client:
            statuses = [(await client.post(IMAGES, json=BODY)).status_code for _ in range(3)]
            assert statuses == [200, 200, 403]
            clock.now += later
            answer = await client.post(IMAGES, json=BODY)
            assert answer.status_code == 200
            usage = (await client.get("/v1/key")).json()["data"]["monthly_usage"]
    assert usage == pytest.approx((3 if retention == "day" else 1 if retention == "month" else 3) * CREDITS / 2e6)


async def test_spend_limit_counts_earlier_spending(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> None:
    async with open_service(tmp_path, engine, clock, billing=PRICES) as service:
        owner = await service.keys.authenticate(service.first_key or "")
        await service.operator.accounts.credit(owner.account_id, 100 * CREDITS)
        _, management = await service.keys.create(KeySpec(is_management=True), owner.account_id)
        async with client_of(service, key=management) as manager, client_of(service, key=service.first_key) as client:
            assert (await client.post(IMAGES, json=BODY)).status_code == 200
            limit = {"retention": "no_reset", "threshold": 2 * CREDITS / 2_000_000}
            await manager.patch(f"/v1/keys/{owner.prefix}", json={"limit": limit})
            statuses = [(await client.post(IMAGES, json=BODY)).status_code for _ in range(2)]
    assert statuses == [200, 403]
    assert clock.now == NOW
