"""The operator's door: keys are made, listed and revoked there, and nothing else is."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from allaprima.api.operator import create_admin_app
from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.service.accounts.keys import is_well_formed
from allaprima.service.app import Service
from fakes import FakeClock

MEMBERS = {"prefix", "name", "account_id", "created_at", "revoked_at", "is_management", "is_disabled"}


@pytest.fixture
async def door(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_admin_app(service.operator))
    async with httpx2.AsyncClient(transport=transport, base_url="http://door.test") as opened:
        yield opened


async def paint(client: httpx2.AsyncClient, key: str) -> int:
    body = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
    return (await client.post(IMAGES_PATH, json=body, headers={"authorization": f"Bearer {key}"})).status_code


async def test_a_made_key_is_shown_once_and_works(
    door: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: FakeClock
) -> None:
    made = (await door.post("/keys", json={"name": "ci"})).json()
    assert set(made) == {*MEMBERS, "key"}
    assert is_well_formed(made["key"])
    assert made["key"][3:11] == made["prefix"]
    assert (made["name"], made["created_at"], made["revoked_at"]) == ("ci", clock.now, None)
    assert await paint(anonymous, made["key"]) == 200


async def test_a_key_needs_no_name(door: httpx2.AsyncClient) -> None:
    assert (await door.post("/keys", json={})).json()["name"] is None


async def test_keys_are_listed_oldest_first_and_without_the_keys(
    door: httpx2.AsyncClient, key: str, clock: FakeClock
) -> None:
    clock.now += 1
    made = (await door.post("/keys", json={"name": "ci"})).json()
    answer = await door.get("/keys")
    assert [row["name"] for row in answer.json()] == ["first", "ci"]
    assert [row["prefix"] for row in answer.json()] == [key[3:11], made["prefix"]]
    assert all(set(row) == MEMBERS for row in answer.json())
    assert key not in answer.text
    assert made["key"] not in answer.text


async def test_a_revoked_key_is_useless_from_the_next_request_on(
    door: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, key: str, clock: FakeClock
) -> None:
    assert await paint(anonymous, key) == 200
    clock.now += 5
    answer = await door.delete(f"/keys/{key[3:11]}")
    assert (answer.status_code, answer.json()) == (200, {"prefix": key[3:11], "revoked": True})
    assert await paint(anonymous, key) == 401
    assert (await door.get("/keys")).json()[0]["revoked_at"] == clock.now


async def test_what_is_no_good_key_can_not_be_revoked(door: httpx2.AsyncClient, key: str) -> None:
    await door.delete(f"/keys/{key[3:11]}")
    for prefix in (key[3:11], "00000000", key):
        answer = await door.delete(f"/keys/{prefix}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "key_not_found"


async def test_the_door_has_no_other_rooms(door: httpx2.AsyncClient) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/v1/models", "/", IMAGES_PATH):
        assert (await door.get(path)).status_code == 404


async def test_the_api_has_no_such_door(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/keys")).status_code == 404
    assert (await client.post("/keys", json={})).status_code == 404
