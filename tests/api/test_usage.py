"""Usage, logs and billing in the platform's form; all of them agree exactly."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.domain.accounts import KeySpec
from allaprima.errors import GenerationFailed
from allaprima.service.app import Service
from tests.databases import ask
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

IMAGES = "/v1/images/generations"
BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a boat", "size": "512x512"}
PRICES = {"prices": {"flux/schnell": {"megapixel": 0.003}, "allaprima/sketch": {"megapixel_step": 0.001}}}
SCHNELL, SKETCH = 1573, 2097
HOUR = 3600


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    """A service with prices, and an account with enough credits."""
    async with open_service(tmp_path, engine, clock, billing=PRICES) as opened:
        owner = await opened.keys.authenticate(opened.first_key or "")
        await opened.operator.accounts.credit(owner.account_id, 10**9, "initial credit")
        yield opened


@pytest.fixture
async def manager(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    _, key = await service.keys.create(KeySpec(is_management=True))
    async with client_of(service, key=key) as opened:
        yield opened


async def generate(client: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    return await client.post(IMAGES, json=BODY | fields)


# Usage --------------------------------------------------------------------------------------------------------------


async def test_total_usage_has_platform_members(client: httpx2.AsyncClient) -> None:
    await generate(client)
    assert (await client.get("/v2/usage?period=24h")).json() == {
        "api_key_prefix": None,
        "start": "2026-01-14T08:00:00.000Z",
        "end": "2026-01-15T08:00:00.000Z",
        "spend": 0.0,
        "currency": "USD",
        "requests": 0,
    }
    # The end of a range is exclusive.
    body = (await client.get("/v2/usage?start=2026-01-15T00:00:00Z&end=2026-01-16T00:00:00Z")).json()
    assert (body["spend"], body["requests"]) == (SCHNELL / 2e6, 1)


async def test_usage_detail_is_summed_by_model_and_by_day(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    for _ in range(2):
        await generate(client)
    await generate(client, model="sketch")
    clock.now += 24 * HOUR
    engine.failure = GenerationFailed("no")
    await generate(client)
    engine.failure = None
    await generate(client)
    clock.now += 1
    query = "/v2/usage/detail?period=7d"
    body = (await client.get(query)).json()
    assert (body["requests"], body["spend"]) == (4, (3 * SCHNELL + SKETCH) / 2e6)
    assert body["models"] == [
        {"model": "flux/schnell", "spend": 3 * SCHNELL / 2e6, "requests": 3},
        {"model": "allaprima/sketch", "spend": SKETCH / 2e6, "requests": 1},
    ]
    assert "groups" not in body
    days = (await client.get(f"{query}&group_by=day")).json()["groups"]
    assert [(day["day"], day["requests"]) for day in days] == [
        ("2026-01-15", {"total": 3, "charged": 3, "succeeded": 3, "failed": 0}),
        ("2026-01-16", {"total": 2, "charged": 1, "succeeded": 1, "failed": 1}),
    ]
    both = (await client.get(f"{query}&group_by=day,model")).json()["groups"]
    assert [(one["day"], one["model"], one["spend"]) for one in both] == [
        ("2026-01-15", "allaprima/sketch", SKETCH / 2e6),
        ("2026-01-15", "flux/schnell", 2 * SCHNELL / 2e6),
        ("2026-01-16", "flux/schnell", SCHNELL / 2e6),
    ]
    assert both[0]["tokens"] == {"input": 0, "output": 0, "total": 0}


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", "2026-01-15"), ("Pacific/Kiritimati", "2026-01-15"), ("Asia/Kathmandu", "2026-01-15"),
     ("Pacific/Pago_Pago", "2026-01-14")],
)  # fmt: skip
async def test_days_follow_requested_time_zone(
    client: httpx2.AsyncClient, clock: FakeClock, zone: str, day: str
) -> None:
    await generate(client)
    clock.now += 1
    [group] = (await client.get("/v2/usage/detail", params={"period": "1d", "group_by": "day", "tz": zone})).json()[
        "groups"
    ]
    assert group["day"] == day


async def test_usage_and_logs_of_any_time_range_are_exact(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    start = clock.now
    times = [0, 1, 899, 900, 901, 1800, 3000, 3599, 3600, 9000]
    for after in times:
        clock.now = start + after
        await generate(client)
    clock.now = start + 10_000
    for begin in (0, 1, 450, 900, 901, 2000, 3600):
        for end in (1, 900, 901, 1801, 3599, 3600, 9001):
            if end < begin:
                continue
            time_range = {
                "start": f"2026-01-15T{8 + begin // 3600:02}:{begin // 60 % 60:02}:{begin % 60:02}Z",
                "end": f"2026-01-15T{8 + end // 3600:02}:{end // 60 % 60:02}:{end % 60:02}Z",
            }
            expected = sum(begin <= after < end for after in times)
            assert (await client.get("/v2/usage", params=time_range)).json()["requests"] == expected, (begin, end)
            logs = (await client.get("/v2/logs", params=time_range)).json()
            assert (logs["pagination"]["total"], len(logs["data"])) == (expected, expected)


async def test_key_prefix_limits_usage_to_one_key(
    service: Service, client: httpx2.AsyncClient, manager: httpx2.AsyncClient, clock: FakeClock
) -> None:
    row, key = await service.keys.create(KeySpec(name="second"))
    await generate(client)
    async with client_of(service, key=key) as second:
        for _ in range(2):
            await generate(second)
        clock.now += 1
        query = f"/v2/usage?period=1h&key_prefix={row.prefix}"
        for who in (second, manager):
            body = (await who.get(query)).json()
            assert (body["api_key_prefix"], body["requests"]) == (row.prefix, 2)
        assert (await client.get(query)).status_code == 403
        assert (await manager.get("/v2/usage?period=1h&key_prefix=unknown")).status_code == 404
    assert (await manager.get("/v2/usage?period=1h")).json()["requests"] == 3


async def test_ordinary_key_reads_only_its_own_usage(
    service: Service, client: httpx2.AsyncClient, manager: httpx2.AsyncClient, clock: FakeClock
) -> None:
    _, idle = await service.keys.create(KeySpec(name="idle"))
    answer = await generate(client)
    clock.now += 1
    async with client_of(service, key=idle) as idle_client:
        for caller, requests in ((idle_client, 0), (client, 1), (manager, 1)):
            for path in ("/v2/usage", "/v2/usage/detail"):
                assert (await caller.get(f"{path}?period=1h")).json()["requests"] == requests
            logs = (await caller.get("/v2/logs?period=1h")).json()
            assert logs["pagination"]["total"] == requests
            found = [row["inference_id"] for row in logs["data"]]
            assert found == [answer.headers["x-inference-id"]] * requests


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "period"),
        ("period=24", "period"),
        ("period=0h", "period"),
        ("period=-1d", "period"),
        ("period=93d", "period"),
        ("period=24h&start=2026-01-01", "period"),
        ("period=1h&period=2h", "period"),
        ("start=2026-01-02T00:00:00Z", "period"),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
        ("start=2025-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
        ("start=0001-01-01T00:00:00%2B14:00&end=0001-01-02T00:00:00Z", "start"),
        ("start=yesterday&end=2026-01-01T00:00:00Z", "start"),
        ("period=1h&group_by=day", "group_by"),
        ("period=1h&tz=UTC", "tz"),
    ],
)
async def test_invalid_time_range_is_refused_by_name(client: httpx2.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"/v2/usage?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("zone", ["utc", "+05:00", "Mars/Olympus", "localtime", "europe/berlin", "../UTC", ""])
async def test_time_zone_names_are_exact(client: httpx2.AsyncClient, zone: str) -> None:
    answer = await client.get("/v2/usage/detail", params={"period": "1h", "tz": zone})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tz")


# By key and day -----------------------------------------------------------------------------------------------------

GENERATED_S = 0.25 + 4 * 0.125 + 0.5 + 0.0625 + 0.03125


async def test_usage_by_key_counts_images_and_compute_seconds_of_each_day(
    service: Service, client: httpx2.AsyncClient, manager: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    owner = await service.keys.authenticate(service.first_key or "")
    record, other_key = await service.keys.create(KeySpec("team"), owner.account_id)
    await generate(client, num_images=2)
    engine.flagged = frozenset({0})
    await generate(client)
    async with client_of(service, key=other_key) as other:
        clock.now += 24 * HOUR
        await generate(other)
        engine.failure = GenerationFailed("no")
        await generate(other)
        await service.keys.revoke(record.prefix)
    clock.now += 1
    body = (await manager.get("/v2/usage/by-key?period=7d")).json()
    [failed_too, first] = body["data"]
    assert failed_too.pop("compute_s") >= GENERATED_S
    assert failed_too == {
        "day": "2026-01-16", "key_prefix": record.prefix, "key_name": "team", "requests": 2, "images": 0,
    }  # fmt: skip
    assert first == {
        "day": "2026-01-15", "key_prefix": owner.prefix, "key_name": "first", "requests": 2, "images": 2,
        "compute_s": round(2 * GENERATED_S, 3),
    }  # fmt: skip
    assert (body["start"], body["end"]) == ("2026-01-09T08:00:01.000Z", "2026-01-16T08:00:01.000Z")


async def test_ordinary_key_sees_its_own_usage_by_day_alone(
    service: Service, client: httpx2.AsyncClient, manager: httpx2.AsyncClient, clock: FakeClock
) -> None:
    owner = await service.keys.authenticate(service.first_key or "")
    record, other_key = await service.keys.create(KeySpec("team"), owner.account_id)
    async with client_of(service, key=other_key) as other:
        await generate(other)
        clock.now += 1
        assert [row["key_name"] for row in (await other.get("/v2/usage/by-key?period=1d")).json()["data"]] == ["team"]
        assert (await other.get(f"/v2/usage/by-key?period=1d&key_prefix={owner.prefix}")).status_code == 403
    assert (await client.get("/v2/usage/by-key?period=1d")).json()["data"] == []
    query = f"/v2/usage/by-key?period=1d&key_prefix={record.prefix}"
    assert len((await manager.get(query)).json()["data"]) == 1


async def test_usage_by_key_has_exact_bounds(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    for _ in range(3):
        await generate(client)
        clock.now += 60
    query = "/v2/usage/by-key?start=2026-01-15T08:01:00Z&end=2026-01-15T08:02:00Z"
    assert [row["requests"] for row in (await client.get(query)).json()["data"]] == [1]
    query = "/v2/usage/by-key?start=2026-01-15T07:00:00Z&end=2026-01-15T09:00:00Z"
    assert [row["requests"] for row in (await client.get(query)).json()["data"]] == [3]


# Logs ---------------------------------------------------------------------------------------------------------------


async def test_logs_list_finished_requests_newest_first(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    done = await client.post(IMAGES, json=BODY, headers={"X-Client-Request-Id": "order-8f21c4"})
    clock.now += 1
    engine.failure = GenerationFailed("no")
    failed = await generate(client)
    clock.now += 1
    body = (await client.get("/v2/logs?period=1h")).json()
    assert body["pagination"] == {"limit": 50, "offset": 0, "total": 2, "has_more": False}
    assert body["data"] == [
        {
            "created": "2026-01-15T08:00:01.000Z",
            "status": "failed",
            "origin": "api",
            "model": "flux/schnell",
            "cost": {"usd": 0, "credits": 0},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": None,
            "inference_id": failed.headers["x-inference-id"],
            "client_request_id": None,
        },
        {
            "created": "2026-01-15T08:00:00.000Z",
            "status": "succeeded",
            "origin": "api",
            "model": "flux/schnell",
            "cost": {"usd": SCHNELL / 2e6, "credits": SCHNELL},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": None,
            "inference_id": done.headers["x-inference-id"],
            "client_request_id": "order-8f21c4",
        },
    ]


async def test_logs_are_filtered_and_paginated(
    client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock
) -> None:
    for number in range(6):
        engine.failure = GenerationFailed("no") if number % 3 == 0 else None
        await generate(client, model=("flux/schnell", "sketch")[number % 2])
        clock.now += 1

    async def found(query: str) -> tuple[int, int, bool]:
        body = (await client.get(f"/v2/logs?period=1h&{query}")).json()
        return len(body["data"]), body["pagination"]["total"], body["pagination"]["has_more"]

    assert await found("status=failed") == (2, 2, False)
    assert await found("status=succeeded&model=flux/schnell") == (2, 2, False)
    assert await found("status=succeeded&status=failed") == (6, 6, False)
    assert await found("model=flux/schnell&model=allaprima/sketch&limit=4") == (4, 6, True)
    assert await found("limit=4&offset=4") == (2, 6, False)
    assert await found("model=unknown") == (0, 0, False)


@pytest.mark.parametrize(
    ("query", "field"),
    [("status=done", "status"), ("status=failed,succeeded", "status"), ("model=a,b", "model"), ("limit=0", "limit"),
     ("limit=101", "limit"), ("offset=-1", "offset"), ("colour=red", "colour")],
)  # fmt: skip
async def test_invalid_log_filter_is_refused_by_name(client: httpx2.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"/v2/logs?period=1h&{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_logs_allow_200_requests_per_minute(client: httpx2.AsyncClient) -> None:
    statuses = [(await client.get("/v2/logs?period=1h")).status_code for _ in range(201)]
    assert statuses == [200] * 200 + [429]


# Billing -----------------------------------------------------------------------------------------------------------


async def test_ledger_lists_every_payment_and_charge(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    clock.now += 1
    answer = await generate(client, num_images=2)
    body = (await client.get("/v2/billing/transactions")).json()
    assert body == {
        "data": [
            {
                "created_at": "2026-01-15T08:00:01.000Z",
                "direction": "CHARGE",
                "type": "MODEL_USAGE",
                "amount": {"usd": 2 * SCHNELL / 2e6, "credits": 2 * SCHNELL},
                "model": "flux/schnell",
                "reference_id": answer.headers["x-inference-id"],
                "images": 2,
            },
            {
                "created_at": "2026-01-15T08:00:00.000Z",
                "direction": "TOPUP",
                "type": "PAYMENT",
                "amount": {"usd": 500.0, "credits": 10**9},
                "model": None,
                "reference_id": None,
                "images": None,
            },
        ],
        "pagination": {"next_cursor": None, "has_more": False},
    }


async def test_ledger_is_paginated_and_filtered(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    for _ in range(5):
        clock.now += 1
        await generate(client)
    path = "/v2/billing/transactions"
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"{path}?limit=2{cursor}")).json()
        seen += [row["created_at"] for row in page["data"]]
        if not page["pagination"]["has_more"]:
            break
        cursor = f"&cursor={page['pagination']['next_cursor']}"
    assert len(seen) == 6
    assert seen == sorted(seen, reverse=True)

    async def count(**query: str) -> int:
        return len((await client.get(path, params=query)).json()["data"])

    assert await count(direction="TOPUP") == 1
    assert await count(type="MODEL_USAGE") == 5
    assert await count(**{"from": "2026-01-15T08:00:02Z", "to": "2026-01-15T08:00:04Z"}) == 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "2026-01-15T08:00:02"}, "from"),
        ({"from": "2026-01-16T00:00:00Z", "to": "2026-01-15T00:00:00Z"}, "to"),
        ({"direction": "topup"}, "direction"),
        ({"type": "GIFT"}, "type"),
        ({"cursor": "abc"}, "cursor"),
        ({"limit": "1000"}, "limit"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_invalid_ledger_parameter_is_refused_by_name(
    client: httpx2.AsyncClient, query: dict[str, str], field: str
) -> None:
    answer = await client.get("/v2/billing/transactions", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_three_endpoints_show_same_balance(client: httpx2.AsyncClient, manager: httpx2.AsyncClient) -> None:
    await generate(client)
    left = 10**9 - SCHNELL
    for who in (client, manager):
        assert (await who.get("/v2/billing")).json() == {"current_balance": left / 2e6, "currency": "USD"}
        detail = (await who.get("/v2/billing/detail")).json()
        assert (detail["email"], detail["current_balance"]) == (None, left / 2e6)
        assert detail["autotopup_settings"]["is_enabled"] is False
        old = (await who.get("/v1/billing/balance")).json()
        assert (old["balance"], old["lowBalance"], old["autoDebitStatus"]) == (left, False, "disabled")
    assert (await manager.get("/v2/billing/transactions")).status_code == 403


async def test_ledger_usage_and_balance_agree_exactly(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine, clock: FakeClock, tmp_path: Path
) -> None:
    for number in range(30):
        engine.failure = GenerationFailed("no") if number % 7 == 0 else None
        engine.flagged = frozenset({0}) if number % 5 == 0 else frozenset()
        await generate(
            client,
            model=("flux/schnell", "sketch")[number % 2],
            num_images=1 + number % 3,
            size=("64x64", "512x512", "1024x768", "96x1536")[number % 4],
        )
        clock.now += 400
    [(usage,)] = ask(tmp_path, "SELECT sum(credits) FROM usage")
    [(charged,)] = ask(tmp_path, "SELECT sum(credits) FROM ledger WHERE direction = 'CHARGE'")
    [(summed,)] = ask(tmp_path, "SELECT sum(credits) FROM usage_buckets")
    assert usage == charged == summed > 0
    assert ask(tmp_path, "SELECT balance, held FROM accounts") == [(10**9 - usage, 0)]
    assert ask(tmp_path, "SELECT sum(spent), sum(held) FROM api_keys") == [(usage, 0)]
    spend = (await client.get("/v2/usage?period=1d")).json()["spend"]
    assert round(spend * 2_000_000) == usage
    assert ask(tmp_path, "SELECT count(*) FROM usage") == [(30,)]
